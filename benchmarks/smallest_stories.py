# SPDX-License-Identifier: Apache-2.0
"""stories15M: perplexity against bytes beside ONNX Runtime's block quantisation.

Calibrated on stories that the network itself makes up, so on no text of anybody.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.block_quantisation import write_blocks
from benchmarks.curves import Curve, bytes_at
from benchmarks.kept_rows import KeptRows
from benchmarks.networks import compress, library_run, stock_run
from models.made_up_stories import made_up_stories
from models.network import Run
from models.zoo import network

SIZES = (5_500_000, 7_500_000, 11_000_000)
BLOCKS = ((4, 32, True), (4, 128, True), (4, 32, False), (8, 32, False))
COUNT, LENGTH = 32, 96


def stories(folder: Path, kept: KeptRows) -> None:
    """Prints bytes and perplexity of each file, and bytes of ours at the others' perplexity."""
    entry = network("stories15m")
    original, calibration = entry.onnx_path(), folder / "stories.npz"

    def perplexity(path: Path, run: Run) -> dict[str, Any]:
        return {"bytes": path.stat().st_size, "perplexity": math.exp(entry.evaluate(run).value)}

    def ours(size: int) -> dict[str, Any]:
        if not calibration.is_file():
            np.savez(calibration, input_ids=made_up_stories(COUNT, LENGTH))
        output = folder / f"{size}.onnx"
        options = ["--target-size", str(size), "--calibration", str(calibration)]
        seconds = compress(original, output, options)
        return {**perplexity(output, library_run(output, "load")), "seconds": round(seconds)}

    def blocks(bits: int, block: int, tables: bool) -> dict[str, Any]:
        output = folder / "blocks.onnx"
        write_blocks(original, output, bits, block, tables)
        return perplexity(output, stock_run(output))

    def line(name: str, row: dict[str, Any], text: str = "") -> None:
        bytes_ = f"{row['bytes'] / 1e6:8.2f} MB"
        print(f"{name:36}{bytes_}  perplexity {row['perplexity']:.4f}{text}", flush=True)

    line(
        "original float32", kept.row("original", lambda: perplexity(original, stock_run(original)))
    )
    curve: Curve = []
    for size in SIZES:
        row = kept.row(f"toolkit {size}", lambda: ours(size))  # noqa: B023
        line(f"toolkit --target-size {size}", row, f"  {row['seconds']} s")
        curve.append((row["bytes"], -row["perplexity"]))
    for bits, block, tables in BLOCKS:
        name = f"MatMulNBits {bits} bit, blocks of {block}" + ", Gather" * tables
        row = kept.row(name, lambda: blocks(bits, block, tables))  # noqa: B023
        best = [size for size, quality in curve if quality >= -row["perplexity"]]
        at = bytes_at(curve, -row["perplexity"])
        size = min(best, default=math.nan) if math.isnan(at) else at
        line(name, row, f"  ours at that: {size / 1e6:.2f} MB")
