# SPDX-License-Identifier: Apache-2.0
"""The smallest files for a given quality, with real inputs as calibration.

    python -m benchmarks.smallest [minilm] [cifar] [networks] [stories]

minilm: the smallest file that the search finds for a mean cosine of the sentence embeddings, and
the seconds that it takes. cifar: accuracy against bytes beside NNCodec with uniform and dependent
quantisation, and with each ingredient switched off. networks: EfficientNet-Lite0 and the VAD at the
fidelity which the default, made without data, was measured to have. stories: perplexity against
bytes beside ONNX Runtime's block quantisation. Qualities are of data that is in no calibration.
"""

from __future__ import annotations

import math
import resource
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.block_quantisation import write_blocks
from benchmarks.ingredients import INGREDIENTS, made_ready, write_variant
from benchmarks.minilm import report
from benchmarks.networks import compress, library_run, save_calibration, stock_run
from benchmarks.nncodec_model import nncodec_file
from models.network import Feeds, Network, Run
from models.zoo import network
from toolkit.fidelity import compare_outputs
from toolkit.scores import score_kinds, to_scores

COSINES = (0.964, 0.9935, 0.9997)
CIFAR_KNOBS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
ABLATED_KNOBS, PLAIN_KNOBS = (0.5, 1.5, 2.5), (-1.5, -0.5, 0.5)
CIFAR_IMAGES, CIFAR_TESTED = 1024, 1000
QPS = {False: (-24, -22, -20), True: (-26, -24, -22)}
ACCURACIES, LEVELS = (79.0, 78.0, 76.0), (24.0, 20.0, 16.0)
STORY_SIZES = (5_500_000, 7_500_000, 11_000_000)

Curve = list[tuple[float, float]]
"""Bytes and quality of files."""


def minilm(folder: Path) -> None:
    """Bytes at three cosines."""
    entry = network("minilm")
    save_calibration(entry, folder / "sentences.npz", 128)
    for cosine in COSINES:
        options = ["--calibration", str(folder / "sentences.npz")]
        options += ["--metric", "benchmarks.sentence_metric:cosine"]
        output = folder / f"{cosine}.onnx"
        before = processor_seconds()
        seconds = compress(entry.onnx_path(), output, [*options, "--max-drop", f"{1 - cosine:.6f}"])
        report(entry, f"--max-drop {1 - cosine:.4f}", output, seconds)
        print(f"{'':28}processor time {processor_seconds() - before:.0f} s", flush=True)


def processor_seconds() -> float:
    """Time of all cores that processes started from here, and ended, have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bytes_at(curve: Curve, quality: float) -> float:
    """Bytes at a quality, between the two files around it; NaN outside of the curve.

    Of files with less quality than a smaller one has, which luck brings, none counts."""
    rising: Curve = []
    for size, value in sorted(curve):
        if not rising or value > rising[-1][1]:
            rising.append((size, value))
    for (small, low), (large, high) in zip(rising, rising[1:], strict=False):
        if low <= quality <= high:
            share = (quality - low) / (high - low)
            return math.exp((1 - share) * math.log(small) + share * math.log(large))
    return math.nan


def cifar(folder: Path) -> None:
    """Accuracy against bytes of the CIFAR-10 CNN beside NNCodec, and what each ingredient gives."""
    entry = network("cifar_cnn")
    save_calibration(entry, folder / "images.npz", CIFAR_IMAGES)
    sweep = made_ready(entry.onnx_path(), folder / "images.npz", folder / "sweep")
    output = folder / "variant.onnx"
    original = held_out(entry, stock_run(entry.onnx_path()), CIFAR_TESTED)
    accuracies: dict[str, Curve] = {}
    levels: dict[str, Curve] = {}
    for ingredient in INGREDIENTS:
        plain = ingredient in ("no measured sensitivity", "bare codec")
        known = CIFAR_KNOBS if ingredient == "all" else PLAIN_KNOBS if plain else ABLATED_KNOBS
        for knob in known:
            size = write_variant(sweep, ingredient, knob, output)
            run = library_run(output, "load")
            level = compare_outputs(original, held_out(entry, run, CIFAR_TESTED)).sqnr_db
            levels.setdefault(ingredient, []).append((size, level))
            text = f"{ingredient:26} knob {knob:+.1f}  {size:9,} bytes  {level:.2f} dB"
            if ingredient in ("all", "bare codec"):
                value = entry.evaluate(run).value
                accuracies.setdefault(ingredient, []).append((size, value))
                text += f"  {value:.2f} %"
            print(text, flush=True)
    for dependent, qps in QPS.items():
        name = "NNCodec " + ("dependent" if dependent else "uniform")
        for qp in qps:
            size, value = _nncodec(entry, qp, dependent)
            accuracies.setdefault(name, []).append((size, value))
            print(f"{name:26} qp   {qp:+4d}  {size:9,} bytes  {value:.2f} %", flush=True)
    print_table("accuracy on 10,000 test images, %", accuracies, ACCURACIES)
    print_table(f"SQNR on {CIFAR_TESTED} test images, dB", levels, LEVELS)


def print_table(title: str, curves: dict[str, Curve], qualities: tuple[float, ...]) -> None:
    """Bytes of each curve at the qualities, and what the curve of all ingredients has less."""
    print(f"\n{title:36}" + "".join(f"{quality:12.1f}" for quality in qualities))
    ours = [bytes_at(curves["all"], quality) for quality in qualities]
    for name, curve in curves.items():
        sizes = [bytes_at(curve, quality) for quality in qualities]
        less = [f"{100 * (a / b - 1):+.1f} %" for a, b in zip(ours, sizes, strict=True)]
        print(f"{name:36}{''.join(f'{size:12,.0f}' for size in sizes)}  {', '.join(less)}")


def _nncodec(entry: Network, qp: int, dependent: bool) -> tuple[int, float]:
    from toolkit.evaluator import Evaluator
    from toolkit.pipeline import read_source

    model = read_source(entry.onnx_path()).model
    weights = {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.numpy().dtype == np.float32
    }
    arrays = {n: np.asarray(v.const_value.numpy()) for n, v in weights.items() if v.const_value}
    size, decoded = nncodec_file(arrays, qp, dependent)
    evaluator = Evaluator(model, weights, 2)
    run: Run = lambda feeds: list(evaluator.outputs(decoded, feeds).values())  # noqa: E731
    return size, entry.evaluate(run).value


def held_out(entry: Network, run: Run, limit: int | None = None) -> list[dict[str, Any]]:
    """What a file gives on the data that the network is evaluated on, on `limit` samples of it."""
    found: list[dict[str, Any]] = []

    def recorded(feeds: Feeds) -> list[Any]:
        outputs = run(feeds)
        found.append({str(i): output for i, output in enumerate(outputs)})
        return outputs

    entry.evaluate(recorded, limit)
    return found


def fidelity_of(entry: Network, path: Path) -> float:
    """Signal-to-noise ratio on that data in dB, of the scores behind probabilities."""
    original = held_out(entry, stock_run(entry.onnx_path()))
    kinds = score_kinds(original)
    found = to_scores(held_out(entry, library_run(path, "load")), kinds)
    return compare_outputs(to_scores(original, kinds), found).sqnr_db


def networks(folder: Path) -> None:
    """Bytes at the fidelity of the default, which knows no data."""
    for name, count in (("efficientnet_lite0", 256), ("silero_vad", 1024)):
        entry = network(name)
        save_calibration(entry, folder / "calibration.npz", count)
        plain, fitted = folder / "plain.onnx", folder / "fitted.onnx"
        compress(entry.onnx_path(), plain, [])
        wanted = fidelity_of(entry, plain)
        asked = wanted
        for _ in range(3):
            options = ["--calibration", str(folder / "calibration.npz")]
            compress(entry.onnx_path(), fitted, [*options, "--min-sqnr", f"{asked:.3f}"])
            reached = fidelity_of(entry, fitted)
            sizes = [path.stat().st_size for path in (plain, fitted)]
            values = [entry.evaluate(library_run(p, "load")).value for p in (plain, fitted)]
            print(
                f"{name:20} default {sizes[0]:9,} bytes, {wanted:.2f} dB, {values[0]:.2f} "
                f"{entry.unit}; calibrated, {asked:.2f} dB asked for: {sizes[1]:9,} bytes, "
                f"{reached:.2f} dB, {values[1]:.2f} {entry.unit}: {sizes[0] / sizes[1]:.2f} x",
                flush=True,
            )
            if reached >= wanted:
                break
            asked += wanted - reached + 0.05


def stories(folder: Path) -> None:
    """Perplexity against bytes of a language model."""
    entry = network("stories15m")
    original = entry.onnx_path()

    def line(name: str, path: Path, run: Run) -> None:
        perplexity = math.exp(entry.evaluate(run).value)
        print(f"{name:34}{path.stat().st_size / 1e6:8.2f} MB  {perplexity:.4f}", flush=True)

    line("original float32", original, stock_run(original))
    save_calibration(entry, folder / "story.npz", 256)
    for size in STORY_SIZES:
        output = folder / f"{size}.onnx"
        options = ["--target-size", str(size), "--calibration", str(folder / "story.npz")]
        compress(original, output, options)
        line(f"toolkit --target-size {size}", output, library_run(output, "load"))
    for bits, block, tables in ((4, 32, True), (4, 128, True), (4, 32, False), (8, 32, False)):
        output = folder / "blocks.onnx"
        write_blocks(original, output, bits, block, tables)
        text = f"MatMulNBits {bits} bit, blocks of {block}" + ", Gather" * tables
        line(text, output, stock_run(output))


PARTS = {"minilm": minilm, "cifar": cifar, "networks": networks, "stories": stories}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
def main(parts: tuple[str, ...]) -> None:
    """The smallest files for a given quality."""
    for name in parts or PARTS:
        print(f"{name}\n", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder))
        print(flush=True)


if __name__ == "__main__":
    main()
