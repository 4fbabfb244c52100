# SPDX-License-Identifier: Apache-2.0
"""Channel pruning of real networks, all ways to choose channels in one run.

    python -m benchmarks.channel_pruning [NAME ...] [--fraction 0.3] [--allocation A] [--quick]
        [--refitted]

How many channels each layer loses is found once, from the sensitivity of the outputs with channels
chosen greedily; all ways to choose them then remove as many of each layer. With `--allocation
equal` each layer loses the same share.
Per network and way: parameters, floating-point operations (two for each multiplication) and bytes
of the file after pruning, latency (the pruned file's to the original's, in plain ONNX Runtime on
one thread, the two taking turns, the median of the ratios), the error of the outputs on inputs that
the pruning never saw (the norm of the difference by the norm of the original's outputs), and the
accuracy on these. Random channels are drawn with several seeds: mean, least and most.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import click
import numpy as np

from benchmarks.channel_trials import LAYERS, Outputs, Trial, trial
from benchmarks.networks import stock_run
from models.fetch import DataUnavailable
from models.network import Feeds, Run
from models.zoo import network
from passes import LiftWeights
from passes.channels import find_channel_groups
from toolkit.pipeline import fold_layers, read_source
from toolkit.prune_model import ChannelReport, prune_channels

WAYS = (
    ("random", False),
    ("l2", False),
    ("greedy", False),
    ("lasso", False),
    ("random", True),
    ("l2", True),
    ("greedy", True),
    ("lasso", True),
)
REFITTED_WAYS = (("random", True), ("greedy", True), ("lasso", True), ("l2", True))
QUICK_WAYS = (*REFITTED_WAYS, ("random", False))
SEEDS, QUICK_SEEDS = 3, 1
TIMED_RUNS = 31


@dataclass(frozen=True)
class Result:
    """One pruned file: its report, latency ratio, output error and accuracy, and the seconds that
    the pruning took."""

    report: ChannelReport
    latency: float
    error: float
    accuracy: float | None
    seconds: float


def relative_error(original: Outputs, found: Outputs) -> float:
    """Norm of the difference by the norm of the original."""
    return float(np.linalg.norm(found - original) / np.linalg.norm(original))


def latency_ratio(original: Run, pruned: Run, feeds: Feeds) -> float:
    """Seconds of `pruned` by those of `original`, the median over runs by turns."""
    ratios = []
    for _ in range(TIMED_RUNS):
        seconds = []
        for run in (original, pruned):
            start = time.perf_counter()
            run(feeds)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


class Bench:
    """One network: its original, and the folder that its files are written to."""

    def __init__(self, inputs: Trial, folder: Path, fraction: float, allocation: str) -> None:
        self.inputs, self.output = inputs, folder / "pruned.onnx"
        self.layers = dict.fromkeys(LAYERS[inputs.name], fraction)
        self.calibration = folder / "calibration"
        self.calibration.mkdir()
        inputs.write_calibration(self.calibration)
        self.path = network(inputs.name).onnx_path()
        self.original = stock_run(self.path, 1)
        self.expected = inputs.outputs(stock_run(self.path))
        self.example = network(inputs.name).feeds(1)
        if allocation == "sensitivity":
            self.layers = self._shares()

    def _shares(self) -> dict[str, float]:
        """The share of its channels that each layer loses, by the name of its weight."""
        report = prune_channels(
            self.path,
            self.output,
            layers=self.layers,
            allocation="sensitivity",
            calibration=self.calibration,
        )
        return {g.name: g.num_removed / g.num_channels for g in report.groups}

    def result(self, selection: str, reconstruct: bool, seed: int) -> Result:
        """Prunes in one way and measures."""
        start = time.perf_counter()
        report = prune_channels(
            self.path,
            self.output,
            layers=self.layers,
            selection=selection,
            reconstruct=reconstruct,
            calibration=self.calibration,
            seed=seed,
        )
        seconds = time.perf_counter() - start
        found = self.inputs.outputs(stock_run(self.output))
        return Result(
            report,
            latency_ratio(self.original, stock_run(self.output, 1), self.example),
            relative_error(self.expected, found),
            self.inputs.accuracy(found),
            seconds,
        )

    def title(self, report: ChannelReport) -> str:
        """The original's figures, and how many channels go."""
        removed = sum(group.num_removed for group in report.groups)
        shares = ", ".join(f"{group.num_removed}/{group.num_channels}" for group in report.groups)
        return (
            f"{self.inputs.name}: {removed} of {channels_of(self.inputs.name, self.path)} channels "
            f"removed ({shares})\n{'':24}{'parameters':>11}{'MFLOPs':>9}{'bytes':>12}{'latency':>9}"
            f"{'output error':>22}{'accuracy':>10}{'seconds':>9}\n"
            + figures("original", report.original_parameters, report.original_macs)
            + f"{report.original_bytes:12,}{1:9.3f}{0:22.3f}"
            + percent(self.inputs.accuracy(self.expected))
        )


def channels_of(name: str, path: Path) -> int:
    """How many channels the layers that may be pruned have."""
    source = read_source(path)
    fold_layers(source)
    LiftWeights(min_elements=0)(source.model)
    patterns = LAYERS[name]
    return sum(
        len(group.channels)
        for group in find_channel_groups(source.model).groups
        if any(fnmatchcase(str(p.weight.name), q) for p in group.producers for q in patterns)
    )


def figures(name: str, parameters: int, macs: int) -> str:
    """The beginning of a row."""
    return f"  {name:22}{parameters:11,}{2e-6 * macs:9.1f}"


def percent(accuracy: float | None) -> str:
    """An accuracy as a column."""
    return f"{'-':>10}" if accuracy is None else f"{accuracy:9.2f}%"


def row(results: list[Result]) -> str:
    """The figures of one way, one result for each seed."""
    report, errors = results[0].report, [result.error for result in results]
    accuracies = [result.accuracy for result in results if result.accuracy is not None]
    name = f"{report.selection}{', refitted' if report.reconstruct else ''}"
    spread = f" ({min(errors):.3f}..{max(errors):.3f})" if len(errors) > 1 else ""
    return (
        figures(name, report.pruned_parameters, report.pruned_macs)
        + f"{report.pruned_bytes:12,}{statistics.median(r.latency for r in results):9.3f}"
        + f"{f'{statistics.mean(errors):.3f}{spread}':>22}"
        + percent(statistics.mean(accuracies) if accuracies else None)
        + f"{statistics.mean(r.seconds for r in results):9.1f}"
    )


def measure(name: str, fraction: float, allocation: str, quick: bool, refitted: bool) -> None:
    """Prints one network's table."""
    inputs = trial(name, quick)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(inputs, Path(folder), fraction, allocation)
        ways = REFITTED_WAYS if refitted else QUICK_WAYS if quick else WAYS
        for place, (selection, reconstruct) in enumerate(ways):
            seeds = (QUICK_SEEDS if quick else SEEDS) if selection == "random" else 1
            results = [bench.result(selection, reconstruct, seed) for seed in range(seeds)]
            if place == 0:
                print(bench.title(results[0].report))
            print(row(results), flush=True)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(tuple(LAYERS)))
@click.option("--fraction", default=0.3, help="Share of the channels that go.")
@click.option("--allocation", type=click.Choice(["equal", "sensitivity"]), default="sensitivity")
@click.option("--quick", is_flag=True, help="Fewer inputs, seeds and ways.")
@click.option("--refitted", is_flag=True, help="Only the ways that refit the layers behind.")
def main(
    names: tuple[str, ...], fraction: float, allocation: str, quick: bool, refitted: bool
) -> None:
    """Prune channels of real networks in every way and evaluate them."""
    start = time.perf_counter()
    for name in names or tuple(LAYERS):
        try:
            measure(name, fraction, allocation, quick, refitted)
        except DataUnavailable as error:
            print(f"{name}: skipped: {error}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
