# SPDX-License-Identifier: Apache-2.0
"""Real networks compressed by `toolkit compress` with default settings, and run in all three ways.

    python -m benchmarks.networks [NAME ...] [--calibrated] [--options "..."]

Per network: bytes before and after, the quality on real data before and after (through load mode),
and the largest difference of the outputs of the three ways to run the file: load mode, stream mode
and stock ONNX Runtime with the function bodies embedded.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import numpy.typing as npt

import runtime
from models.fetch import DataUnavailable
from models.network import Feeds, Network, Run
from models.zoo import NAMES, network

Outputs = list[npt.NDArray[np.generic]]


def session_options(threads: int) -> Any:
    """Options of both kinds of session: `threads` for each operator, 0 for one per core, which do
    not spin, so that sessions side by side leave each other the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def library_run(path: Path, mode: Literal["load", "stream"], threads: int = 0) -> Run:
    """Runs a file through `runtime.InferenceSession` in a mode."""
    providers = ["CPUExecutionProvider"]
    options = session_options(threads)
    session = runtime.InferenceSession(str(path), options, providers=providers, mode=mode)
    return lambda feeds: list(session.run(None, feeds))


def stock_run(path: Path, threads: int = 0) -> Run:
    """Runs a file on ONNX Runtime with nothing registered."""
    import onnxruntime

    options = session_options(threads)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feeds: list(session.run(None, feeds))


def compress(original: Path, output: Path, options: list[str]) -> float:
    """Run `toolkit compress` in a process of its own; returns its seconds."""
    command = [sys.executable, "-m", "toolkit", "compress", str(original), "-o", str(output)]
    start = time.perf_counter()
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):
        raise SystemExit(f"{shlex.join(command)} failed:\n{result.stderr}")
    return time.perf_counter() - start


def relative_difference(left: Outputs, right: Outputs) -> float:
    """Largest difference of two runs' outputs, by the largest magnitude of each output."""
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if a.dtype.kind != "f":
            worst = max(worst, float(not np.array_equal(a, b)))
            continue
        peak = max(float(np.abs(a).max(initial=0)), 1e-30)
        worst = max(worst, float(np.abs(a.astype(np.float64) - b).max(initial=0)) / peak)
    return worst


def save_calibration(entry: Network, path: Path, count: int) -> None:
    """Real inputs that the evaluation does not use, as `--calibration` takes them."""
    np.savez(path, **entry.calibration(count))


def quality(entry: Network, run: Run, limit: int | None) -> str:
    """The network's own measure in its unit."""
    result = entry.evaluate(run, limit)
    return f"{result.value:.4g} {result.unit}"


def measure(entry: Network, options: list[str], count: int, limit: int | None) -> None:
    """Prints one row."""
    original = entry.onnx_path()
    with tempfile.TemporaryDirectory() as folder:
        output, portable = Path(folder, "small.onnx"), Path(folder, "portable.onnx")
        if count:
            save_calibration(entry, Path(folder, "calibration.npz"), count)
            options = [*options, "--calibration", str(Path(folder, "calibration.npz"))]
        seconds = compress(original, output, options)
        compress(original, portable, [*options, "--portable"])
        before, after = original.stat().st_size, output.stat().st_size
        feeds: Feeds = entry.feeds(1)
        load, stream = library_run(portable, "load"), library_run(portable, "stream")
        expected = load(feeds)
        ways = [relative_difference(expected, run(feeds)) for run in (stream, stock_run(portable))]
        print(
            f"{entry.name:19}{before / 1e6:8.2f} MB ->{after / 1e6:8.3f} MB {before / after:6.2f} x"
            f"  {quality(entry, stock_run(original), limit):>12} ->"
            f" {quality(entry, library_run(output, 'load'), limit):>12}"
            f"  stream {ways[0]:.0e}  stock {ways[1]:.0e}  {seconds:5.1f} s",
            flush=True,
        )


@click.command()
@click.argument("names", nargs=-1)
@click.option("--calibrated", default=0, help="Give this many real inputs as calibration.")
@click.option("--limit", type=int, help="Evaluate on at most so many samples.")
@click.option("--options", default="", help="Further options of `toolkit compress`.")
def main(names: tuple[str, ...], calibrated: int, limit: int | None, options: str) -> None:
    """Compress real networks with default settings and evaluate them."""
    for name in names or NAMES:
        try:
            measure(network(name), shlex.split(options), calibrated, limit)
        except DataUnavailable as error:
            print(f"{name:19} skipped: {error}")


if __name__ == "__main__":
    main()
