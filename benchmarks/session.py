# SPDX-License-Identifier: Apache-2.0
"""Session start and latency of compressed files beside the plain model's.

    python -m benchmarks.session [NAME ...]

Each figure is the median of turns taken alternately by the plain file in ONNX Runtime and the
compressed one in load and stream mode and on stock ONNX Runtime; ratios are to the plain file.
"from disk" adds the time that the file's bytes take at 200 MB/s to the start. "decode" is the part
of load mode's start in which the weights are decoded, on as many threads as there are cores.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.networks import compress, library_run, stock_run
from models.fetch import DataUnavailable
from models.network import Run
from models.zoo import NAMES, network

DISK_BYTES_PER_SECOND = 200e6


def medians(turns: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Median seconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(count):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def decode_seconds(path: Path, count: int) -> float:
    """Median seconds in which load mode decodes all weights of a file."""
    import onnx
    import onnxruntime

    from runtime.decode_weights import decode_weights
    from runtime.graph_rewrite import cut, prepare
    from runtime.load_plan import load_plainly

    content = path.read_bytes()
    if load_plainly(content, 0, 0) is not None:
        return medians({"decode": lambda: load_plainly(content, 0, 0)}, count)["decode"]
    parts = cut(prepare(onnx.load_model_from_string(content)))
    if parts is None:
        return 0.0
    options = onnxruntime.SessionOptions()
    return medians({"decode": lambda: decode_weights(parts, "", options)}, count)["decode"]


def measure(name: str, starts: int, runs: int, threads: int) -> None:
    """Prints one network's rows."""
    entry = network(name)
    plain = entry.onnx_path()
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small.onnx")
        compress(plain, small, ["--portable"])
        makers: dict[str, Callable[[], Run]] = {
            "plain": lambda: stock_run(plain, threads),
            "load": lambda: library_run(small, "load", threads),
            "stream": lambda: library_run(small, "stream", threads),
            "stock": lambda: stock_run(small, threads),
        }
        start = medians(makers, starts)
        decoding = decode_seconds(small, starts)
        feeds = entry.feeds(1)
        ready = {way: make() for way, make in makers.items()}
        for run in ready.values():
            run(feeds)
        latency = medians({way: (lambda r=run: r(feeds)) for way, run in ready.items()}, runs)
        size = {way: (plain if way == "plain" else small).stat().st_size for way in makers}
    base = start["plain"] + size["plain"] / DISK_BYTES_PER_SECOND
    for way in makers:
        disk = start[way] + size[way] / DISK_BYTES_PER_SECOND
        print(
            f"{name:19}{way:8}{size[way] / 1e6:8.2f} MB  start {1e3 * start[way]:8.1f} ms"
            f" {start[way] / start['plain']:6.2f} x  from disk {disk / base:5.2f} x"
            f"  latency {1e3 * latency[way]:8.2f} ms {latency[way] / latency['plain']:7.2f} x",
            flush=True,
        )
    print(f"{name:19}{'decode':8}{'':11}  start {1e3 * decoding:8.1f} ms", flush=True)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--starts", default=15, show_default=True, help="Sessions made of each kind.")
@click.option("--runs", default=31, show_default=True, help="Runs of each kind.")
@click.option("--threads", default=1, show_default=True, help="Threads of each session.")
def main(names: tuple[str, ...], starts: int, runs: int, threads: int) -> None:
    """Session start and latency of compressed files."""
    for name in names or NAMES:
        try:
            measure(name, starts, runs, threads)
        except DataUnavailable as error:
            print(f"{name:19} skipped: {error}")


if __name__ == "__main__":
    main()
