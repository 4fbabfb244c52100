# SPDX-License-Identifier: Apache-2.0
"""Channel pruning of real networks, all ways to choose channels in one run.

    python -m benchmarks.channel_pruning [NAME ...] [--fraction 0.3] [--samples 32]

Per network and way: bytes, multiplications and latency as shares of the original's (latency: the
two files side by side on one thread, the best of many runs), the signal-to-noise ratio of the
outputs on the evaluation data, which the pruning never saw, and the network's own quality.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks.networks import stock_run
from models import efficientnet_lite0, open_nsfw
from models.cifar_cnn import cifar10_images
from models.fetch import DataUnavailable
from models.network import Feeds, Network, Run
from models.zoo import network
from toolkit.prune_model import ChannelReport, prune_channels

WAYS = (
    ("greedy", True),
    ("lasso", True),
    ("l2", True),
    ("random", True),
    ("greedy", False),
    ("lasso", False),
    ("l2", False),
    ("random", False),
)
LAYERS: dict[str, tuple[str, ...]] = {
    "cifar_cnn": ("*",),
    "open_nsfw": ("*branch2a*", "Conv__*"),
    "efficientnet_lite0": ("*expand_conv*", "_conv_head*"),
}
"""Which layers lose channels: all of the plain network, those inside of the blocks of the others,
whose residual sums stay."""
FEED, TIMED_RUNS = 4, 30

Outputs = list[npt.NDArray[np.generic]]


def recorded(run: Run) -> tuple[Run, Outputs]:
    """`run`, and a list that the first output of every run is added to."""
    found: Outputs = []

    def wrapped(feeds: Feeds) -> Outputs:
        outputs = run(feeds)
        found.append(outputs[0])
        return outputs

    return wrapped, found


def sqnr_db(original: Outputs, outputs: Outputs) -> float:
    """Signal-to-noise ratio of all outputs together, dB."""
    a = np.concatenate([part.reshape(-1) for part in original]).astype(np.float64)
    b = np.concatenate([part.reshape(-1) for part in outputs]).astype(np.float64)
    return float(10 * np.log10(np.vdot(a, a) / max(float(np.vdot(a - b, a - b)), 1e-30)))


def best_times(runs: list[Run], feeds: Feeds) -> list[float]:
    """Least seconds of each run, the runs taking turns."""
    best = [float("inf")] * len(runs)
    for _ in range(TIMED_RUNS):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run(feeds)
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def enlarged_photos(count: int, side: int) -> npt.NDArray[np.uint8]:
    """Photos of CIFAR-10's training set enlarged, uint8 RGB (count, side, side, 3): blurred, but of
    more things than the two photos whose crops the networks give for calibration."""
    from PIL import Image

    small = cifar10_images("data_batch_1")[:count].transpose(0, 2, 3, 1).astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(p).resize((side, side), bicubic)) for p in small])


def calibration_feeds(entry: Network, samples: int) -> Feeds:
    """Real inputs that the evaluation does not use; for photos a quarter is crops."""
    photo_feeds = {
        "open_nsfw": open_nsfw.photo_feeds,
        "efficientnet_lite0": efficientnet_lite0.photo_feeds,
    }.get(entry.name)
    if photo_feeds is None:
        return entry.calibration(samples)
    crops = entry.calibration(samples // 4)
    others = photo_feeds(enlarged_photos(samples - samples // 4, open_nsfw.SIDE))
    return {name: np.concatenate([crops[name], others[name]]) for name in crops}


def write_calibration(entry: Network, folder: Path, samples: int) -> None:
    """The calibration, a few samples to a file."""
    feeds = calibration_feeds(entry, samples)
    size = 1 if entry.name == "open_nsfw" else FEED * (8 if entry.name == "cifar_cnn" else 1)
    for start in range(0, samples, size):
        part = {name: array[start : start + size] for name, array in feeds.items()}
        np.savez(folder / f"{start:05d}.npz", **part)


def measure(
    entry: Network,
    fraction: float,
    samples: int,
    limit: int | None,
    ways: tuple[tuple[str, bool], ...],
    show: Callable[[str], None],
) -> None:
    """Shows one row per way."""
    path = entry.onnx_path()
    original, expected = recorded(stock_run(path, 1))
    before = entry.evaluate(original, limit)
    show(f"{entry.name}: {before.metric} {before.value:.2f} {before.unit}, {samples} samples")
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder, "calibration")
        calibration.mkdir()
        write_calibration(entry, calibration, samples)
        for selection, reconstruct in ways:
            output = Path(folder, "pruned.onnx")
            start = time.perf_counter()
            report = prune_channels(
                path,
                output,
                layers=dict.fromkeys(LAYERS.get(entry.name, ("*",)), fraction),
                selection=selection,
                reconstruct=reconstruct,
                calibration=calibration,
            )
            seconds = time.perf_counter() - start
            pruned, found = recorded(stock_run(output, 1))
            after = entry.evaluate(pruned, limit)
            times = best_times([stock_run(path, 1), stock_run(output, 1)], entry.feeds(1))
            show(row(report, sqnr_db(expected, found), times) + f" {after.value:8.2f}{after.unit}"
                 f"  {detail(dict(after.details))}  {seconds:5.0f} s")  # fmt: skip


def row(report: ChannelReport, sqnr: float, times: list[float]) -> str:
    """The figures of one way."""
    refit = "refitted" if report.reconstruct else "as it is"
    return (
        f"  {report.selection:7} {refit:9} bytes {report.pruned_bytes / report.original_bytes:.3f}"
        f"  MACs {report.pruned_macs / report.original_macs:.3f}"
        f"  latency {times[1] / times[0]:.3f}  SQNR {sqnr:6.2f} dB "
    )


def detail(details: dict[str, float]) -> str:
    """The further figures of a quality."""
    return ", ".join(f"{name} {value:.3g}" for name, value in details.items())


@click.command()
@click.argument("names", nargs=-1)
@click.option("--fraction", default=0.3, help="Share of the channels that go.")
@click.option("--samples", default=32, help="Calibration samples.")
@click.option("--limit", type=int, help="Evaluate on at most so many samples.")
@click.option("--refitted-only", is_flag=True, help="Leave out the ways without refit.")
def main(
    names: tuple[str, ...], fraction: float, samples: int, limit: int | None, refitted_only: bool
) -> None:
    """Prune channels of real networks in every way and evaluate them."""
    ways = tuple(way for way in WAYS if way[1] or not refitted_only)
    for name in names or tuple(LAYERS):
        try:
            measure(
                network(name), fraction, samples, limit, ways, lambda text: print(text, flush=True)
            )
        except DataUnavailable as error:
            print(f"{name}: skipped: {error}")


if __name__ == "__main__":
    main()
