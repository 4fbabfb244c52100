# SPDX-License-Identifier: Apache-2.0
"""The CIFAR-10 CNN: accuracy against bytes beside NNCodec, and what each ingredient gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves import Curve, curve_around, print_table
from benchmarks.ingredients import INGREDIENTS, made_ready, write_variant
from benchmarks.kept_rows import KeptRows
from benchmarks.networks import library_run, save_calibration, stock_run
from benchmarks.nncodec_model import nncodec_file
from models.network import Feeds, Network, Run
from models.zoo import network
from toolkit.fidelity import compare_outputs

IMAGES, TESTED = 1024, 1000
ACCURACIES, LEVELS = (79.5, 79.0, 78.0, 77.0), (24.0, 20.0, 16.0)
OURS = ("all", "no rate in the choice")
KNOBS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
STARTS = {"bare codec": -1.0, "no measured sensitivity": 0.0, "no compensation": -1.0}
SPACING, FINEST = 0.75, -6.0
QPS = {False: (-26, -24, -23, -22, -21, -20, -19, -18), True: (-28, -26, -25, -24, -23, -22)}


def cifar(folder: Path, kept: KeptRows) -> None:
    """Prints files, and bytes at equal accuracy and at equal signal-to-noise ratio."""
    entry = network("cifar_cnn")
    images = folder / "images.npz"
    save_calibration(entry, images, IMAGES)
    sweep = made_ready(entry.onnx_path(), images, folder / "sweep")
    original = held_out(entry, stock_run(entry.onnx_path()), TESTED)

    def variant(ingredient: str, knob: float, with_accuracy: bool) -> dict[str, float]:
        def measure() -> dict[str, float]:
            output = folder / "variant.onnx"
            size = write_variant(sweep, ingredient, knob, output)
            run = library_run(output, "load")
            level = compare_outputs(original, held_out(entry, run, TESTED)).sqnr_db
            found = {"bytes": size, "sqnr_db": level}
            return found | ({"accuracy": entry.evaluate(run).value} if with_accuracy else {})

        row = kept.row(f"{ingredient}, knob {knob:+.2f}, accuracy {with_accuracy}", measure)
        text = f"{ingredient:26} knob {knob:+.2f}  {row['bytes']:9,} bytes  {row['sqnr_db']:.2f} dB"
        print(text + (f"  {row['accuracy']:.2f} %" if with_accuracy else ""), flush=True)
        return row

    def level_of(ingredient: str, knob: float) -> tuple[float, float]:
        row = variant(ingredient, knob, False)
        return row["bytes"], row["sqnr_db"]

    accuracies: dict[str, Curve] = {}
    for ingredient in OURS:
        rows = [variant(ingredient, knob, True) for knob in KNOBS]
        accuracies[ingredient] = [(row["bytes"], row["accuracy"]) for row in rows]
    for dependent, qps in QPS.items():
        name = "NNCodec " + ("dependent" if dependent else "uniform")
        for qp in qps:
            row = kept.row(f"{name}, qp {qp}", lambda: _nncodec(entry, qp, dependent))  # noqa: B023
            accuracies.setdefault(name, []).append((row["bytes"], row["accuracy"]))
            text = f"{row['bytes']:9,} bytes  {row['accuracy']:.2f} %"
            print(f"{name:26} qp   {qp:+5d}  {text}", flush=True)
    levels = {
        ingredient: curve_around(
            lambda knob: level_of(ingredient, knob),  # noqa: B023
            LEVELS,
            STARTS.get(ingredient, 1.5),
            SPACING,
            FINEST,
        )
        for ingredient in INGREDIENTS
    }
    print_table("accuracy on 10,000 test images, %", accuracies, ACCURACIES)
    print_table(f"SQNR on {TESTED} test images, dB", levels, LEVELS)


def _nncodec(entry: Network, qp: int, dependent: bool) -> dict[str, float]:
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
    return {"bytes": size, "accuracy": entry.evaluate(run).value}


def held_out(entry: Network, run: Run, limit: int | None = None) -> list[dict[str, Any]]:
    """What a file gives on the data that the network is evaluated on, on `limit` samples of it."""
    found: list[dict[str, Any]] = []

    def recorded(feeds: Feeds) -> list[Any]:
        outputs = run(feeds)
        found.append({str(i): output for i, output in enumerate(outputs)})
        return outputs

    entry.evaluate(recorded, limit)
    return found
