# SPDX-License-Identifier: Apache-2.0
"""MiniLM at given file sizes: fidelity of its sentence embeddings, beside other tools' files.

    python -m benchmarks.minilm [--calibrated N]

Embeddings of 256 English sentences that neither search nor calibration sees; cosine to the float
file's. Peers are run here too: ONNX Runtime's dynamic int8 quantisation.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.networks import compress, library_run, save_calibration, stock_run
from models.network import Network
from models.zoo import network

SIZES = (10_800_000, 14_300_000, 19_500_000)


def report(entry: Network, name: str, path: Path, seconds: float | None = None) -> None:
    """Prints one file's bytes and fidelity; toolkit files run in load mode."""
    run = stock_run(path) if seconds is None else library_run(path, "load")
    result = entry.evaluate(run)
    details = ", ".join(f"{key} {value:.4g}" for key, value in result.details.items())
    took = "" if seconds is None else f"  {seconds:.0f} s"
    print(
        f"{name:28}{path.stat().st_size / 1e6:8.2f} MB  cosine {result.value:.4f}  {details}{took}",
        flush=True,
    )


@click.command()
@click.option("--calibrated", default=0, help="Give so many other sentences as calibration.")
def main(calibrated: int) -> None:
    """Fidelity of MiniLM at given file sizes."""
    from onnxruntime.quantization import quantize_dynamic

    entry = network("minilm")
    original = entry.onnx_path()
    with tempfile.TemporaryDirectory() as folder:
        report(entry, "original float32", original)
        options: list[str] = []
        if calibrated:
            save_calibration(entry, Path(folder, "calibration.npz"), calibrated)
            options = ["--calibration", str(Path(folder, "calibration.npz"))]
        for size in SIZES:
            output = Path(folder, f"{size}.onnx")
            seconds = compress(original, output, ["--target-size", str(size), *options])
            report(entry, f"toolkit --target-size {size}", output, seconds)
        seconds = compress(original, Path(folder, "default.onnx"), options)
        report(entry, "toolkit, no option", Path(folder, "default.onnx"), seconds)
        for per_channel in (False, True):
            peer = Path(folder, f"int8_{per_channel}.onnx")
            quantize_dynamic(str(original), str(peer), per_channel=per_channel)
            report(entry, "ORT dynamic int8" + ", per channel" * per_channel, peer)


if __name__ == "__main__":
    main()
