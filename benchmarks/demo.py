# SPDX-License-Identifier: Apache-2.0
"""The README's demo: compresses a trained network and shows what that cost.

    python -m benchmarks.demo

magika tells 214 types of file apart. It is fetched from PyPI, compressed with no option set, and
both files are judged on real files with known types.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.networks import compress, library_run, stock_run
from models.fetch import DataUnavailable
from models.network import Feeds, Run
from models.zoo import network

TURNS = 30


def latencies(runs: dict[str, Run], feeds: Feeds) -> dict[str, float]:
    """Median milliseconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            start = time.perf_counter()
            run(feeds)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Compress magika and print the table before and after."""
    entry = network("magika")
    try:
        original = entry.onnx_path()
        print(f"{entry.name}: {entry.description}")
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder, "small.onnx")
            seconds = compress(original, small, [])
            runs = {"before": stock_run(original), "after": library_run(small, "load")}
            quality = {name: entry.evaluate(run) for name, run in runs.items()}
            speed = latencies(runs, entry.feeds(1))
            bytes_of = {"before": original.stat().st_size, "after": small.stat().st_size}
    except DataUnavailable as error:
        sys.exit(f"the demo's network cannot be fetched: {error}")
    print(f"{'':10}{'bytes':>12}{'ratio':>9}{quality['before'].metric:>22}{'latency':>12}")
    for name, size in bytes_of.items():
        share = bytes_of["before"] / size
        score = f"{quality[name].value:.2f} {quality[name].unit}"
        print(f"{name:10}{size:12,}{share:8.2f}x{score:>22}{speed[name]:9.2f} ms")
    print(f"compressed in {seconds:.1f} s; accuracy over {quality['after'].num_samples} files")


if __name__ == "__main__":
    main()
