# SPDX-License-Identifier: Apache-2.0
"""Layers fitted to the inputs that the compressed layers before them give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toolkit
from passes.bias_correction import bias_places
from passes.schemes import Moments
from tests.toolkit_models import mlp
from toolkit.errors import InputError
from toolkit.fitting import CalibratedFitting
from toolkit.moment_store import moments_of
from toolkit.pipeline import read_source
from toolkit.prepare_model import prepare
from toolkit.refit_in_order import layers_in_order, refit_in_order


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((400, 8)) @ rng.standard_normal((8, 64))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))
    return tmp_path / "x.npz"


def test_later_layers_see_what_earlier_ones_give(tmp_path: Path, data: Path) -> None:
    source = read_source(mlp(tmp_path / "m.onnx", width=192))
    assert layers_in_order(source, ["B", "A"]) == [["A"], ["B"]]
    prepared = prepare(source, ["A", "B", "a"], data, 1, divide=True, extra=["b"])
    store = moments_of(source, prepared.fitted, ["A", "B"], 1, kept_in=tmp_path / "kept")
    places = bias_places(source.model, ["A", "B"])
    prepared.fitting = CalibratedFitting(source.weights, store, 1, places, prepared.extras)
    steps = {"A": 0.25, "B": 0.15, "a": 0.001}
    before = prepared.fidelity(steps)
    first = prepared.fitting
    kept_first = {name: first.kept(name, step).decode() for name, step in steps.items()}  # type: ignore[union-attr]
    fitting, values = refit_in_order(source, prepared, steps, 1)
    for name, array in kept_first.items():  # biases made up for the errors of all weights
        np.testing.assert_array_equal(first.kept(name, steps[name]).decode(), array)  # type: ignore[union-attr]
    x = np.concatenate([feed["x"] for feed in prepared.fitted])
    hidden = np.maximum(x @ values["A"] + values["a"], 0)
    known = fitting.moments["B"]
    assert isinstance(known, Moments)
    np.testing.assert_allclose(known.means[0], hidden.mean(0), rtol=2e-3, atol=2e-3)
    assert not np.allclose(known.means, store["B"].means, atol=1e-2)  # type: ignore[union-attr]
    after = prepared.fidelity_with(values)
    assert after.sqnr_db > before.sqnr_db - 0.3
    assert set(values) == {"A", "B", "a", "b"}
    for name in steps:
        kept = fitting.kept(name, steps[name])
        assert kept is not None
        np.testing.assert_array_equal(kept.decode(), values[name])


def test_compress_says_what_it_gave(tmp_path: Path, data: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=192)
    report = toolkit.compress(
        model, tmp_path / "o.onnx", min_sqnr=14, calibration=data, sequential=True
    )
    [note] = [note for note in report.notes if note.startswith("layers fitted again")]
    assert note.endswith("taken") and report.reached and "--sequential" in report.command
    sized = toolkit.compress(
        model, tmp_path / "s.onnx", target_size=6000, calibration=data, sequential=True
    )
    assert sized.reached and (tmp_path / "s.onnx").stat().st_size <= 6000
    with pytest.raises(InputError, match="--sequential: give real inputs by --calibration"):
        toolkit.compress(model, tmp_path / "p.onnx", sequential=True)
