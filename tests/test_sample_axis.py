# SPDX-License-Identifier: Apache-2.0
"""Rows of a calibration array that are samples, and rows that are steps of one sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import toolkit
from tests.toolkit_models import mlp, save
from toolkit.calibration_split import split_calibration
from toolkit.sample_axis import rows_are_samples
from toolkit.signature import InputSpec

X = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((6, 3))

SAMPLES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a matrix": lambda x: {"y": x @ WEIGHT},
    "rows on a later axis": lambda x: {"y": (x @ WEIGHT).T[None]},
    "an output that no row changes": lambda x: {"y": x @ WEIGHT, "anchors": np.arange(12.0)},
    "winners": lambda x: {"y": (x @ WEIGHT).argmax(1)},
    "a scale that follows the batch": lambda x: {"y": np.rint(100 * x / x.max()) * x.max()},
    "maps, one for each row": lambda x: {"y": [{0: a, 1: b} for a, b in x[:, :2].tolist()]},
    "noise beside it": lambda x: {"y": x, "z": np.random.default_rng().standard_normal(5)},
}
STEPS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a mean over all rows": lambda x: {"y": x.mean(0)},
    "what came before counts": lambda x: {"y": np.cumsum(x, 0)},
    "one output of two": lambda x: {"y": x, "z": x.sum()},
    "few rows are too few": lambda x: {"y": x} if len(x) > 4 else {}["absent"],
}


@pytest.mark.parametrize(("kinds", "expected"), [(SAMPLES, True), (STEPS, False)])
def test_rows_that_do_not_touch_each_other(
    kinds: dict[str, Callable[[Any], dict[str, Any]]], expected: bool
) -> None:
    parts = [{"x": X[:4]}, {"x": X[4:]}]
    for name, run in kinds.items():
        found = rows_are_samples(lambda feed, run=run: run(feed["x"]), {"x": X}, parts)  # type: ignore[misc]
        assert found == expected, name


def test_feeds_of_steps_stay_whole() -> None:
    spec = [InputSpec("x", "float", ("time", 6))]
    feeds = [{"x": np.roll(X, shift, 1)} for shift in range(6)]
    split = split_calibration(feeds, spec, lambda feed: {"y": feed["x"].mean(0)})
    assert all(any(piece is feed for feed in feeds) for piece in split.pieces)
    assert len(split.pieces) == 6 and split.note.startswith("fitted to 5 samples")
    rows = split_calibration(feeds, spec, lambda feed: {"y": 2 * feed["x"]})
    assert sum(len(piece["x"]) for piece in rows.pieces) == 48 and len(rows.pieces) > 6


def over_time(path: Path) -> Path:
    """x [time, features] as one image through a convolution over time, and the mean over time."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("Transpose", ["x"], ["h0"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["h0", "axes"], ["h1"]),
        helper.make_node("Conv", ["h1", "w"], ["h2"], pads=[4, 4]),
        helper.make_node("Relu", ["h2"], ["h3"]),
        helper.make_node("GlobalAveragePool", ["h3"], ["h4"]),
        helper.make_node("Flatten", ["h4"], ["h5"]),
        helper.make_node("MatMul", ["h5", "v"], ["y"]),
    ]
    arrays = {
        "w": rng.standard_normal((64, 16, 9)) / 12,
        "v": rng.standard_normal((64, 12)) / 8,
    }
    given = [("x", TensorProto.FLOAT, ["time", "features"])]
    return save(path, nodes, arrays, given, [("y", TensorProto.FLOAT, [1, 12])])


def test_a_recording_is_not_cut_into_pieces(tmp_path: Path) -> None:
    model = over_time(tmp_path / "m.onnx")
    (tmp_path / "data").mkdir()
    for number in range(12):
        x = np.abs(np.random.default_rng(number).standard_normal((90, 16))).astype(np.float32)
        np.savez(tmp_path / "data" / f"{number}.npz", x=x)
    found = toolkit.compress(model, tmp_path / "o.onnx", min_sqnr=20, calibration=tmp_path / "data")
    assert any(note.startswith("fitted to 9 samples") for note in found.notes)
    whole = toolkit.compare(model, tmp_path / "o.onnx", calibration=tmp_path / "data")
    assert whole.fidelity.sqnr_db >= 20


def test_a_batch_still_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((64, 64), np.float32))
    found = toolkit.compress(mlp(tmp_path / "m.onnx"), calibration=tmp_path / "x.npz")
    assert any(note.startswith("fitted to 48 samples") for note in found.notes)
