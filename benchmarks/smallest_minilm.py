# SPDX-License-Identifier: Apache-2.0
"""MiniLM: the smallest file that the search finds for a mean cosine of the sentence embeddings.

Three disjoint sets of sentences: those that calibrate, those that the metric of the search is
measured on (benchmarks.sentence_metric), and the 256 that judge.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

from benchmarks.kept_rows import KeptRows
from benchmarks.networks import compress, library_run, save_calibration
from models.zoo import network

COSINES = (0.964, 0.9935, 0.9997)
SENTENCES = 128


def minilm(folder: Path, kept: KeptRows) -> None:
    """Bytes at three cosines, and the time that finding them takes."""
    entry = network("minilm")
    sentences = folder / "sentences.npz"
    save_calibration(entry, sentences, SENTENCES)

    def found(cosine: float) -> dict[str, Any]:
        options = ["--calibration", str(sentences)]
        options += ["--metric", "benchmarks.sentence_metric:cosine"]
        output = folder / f"{cosine}.onnx"
        before = processor_seconds()
        seconds = compress(entry.onnx_path(), output, [*options, "--max-drop", f"{1 - cosine:.6f}"])
        processor = processor_seconds() - before
        result = entry.evaluate(library_run(output, "load"))
        times = {"seconds": round(seconds), "processor_seconds": round(processor)}
        return {"bytes": output.stat().st_size, "cosine": result.value, **result.details, **times}

    for cosine in COSINES:
        row = kept.row(f"cosine {cosine}", lambda: found(cosine))  # noqa: B023
        print(
            f"--max-drop {1 - cosine:.4f}  {row['bytes'] / 1e6:6.2f} MB  cosine {row['cosine']:.5f}"
            f" (least {row['min_cosine']:.4f}, same neighbour "
            f"{row['same_nearest_neighbour_percent']:.1f} %)  {row['seconds']} s, "
            f"{row['processor_seconds']} s of processor time",
            flush=True,
        )


def processor_seconds() -> float:
    """Time of all cores that processes started from here, and ended, have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
