# SPDX-License-Identifier: Apache-2.0
"""How much errors of a layer's outputs count: against what is known of small networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from passes.moments import measure_output_importance, with_outputs
from passes.schemes import Compensated, CompensatedTrellis, FitContext, Moments
from passes.schemes.moments import MatrixLayout
from tests.channel_models import Captured
from tests.passes_models import model_of, normal, proto_of
from toolkit.moment_store import moments_of
from toolkit.pipeline import read_source

HEAD = '< ir_version: 8, opset_import: ["" : 17] >\n'


def _text(body: str, shape: str) -> str:
    return f"{HEAD} net (float[{shape}] x) => (float y) {{ {body} }}"


def _two_layers() -> onnx.ModelProto:
    weights = {"a": normal(6, 5, seed=1), "b": normal(5, 1, seed=2)}
    return proto_of(_text("h = MatMul(x, a)  y = MatMul(h, b)", "n, 6"), weights)


def test_two_layers_by_hand() -> None:
    """y = x a b has one number: its gradient with respect to the outputs of `a` is b."""
    proto = _two_layers()
    feeds = [{"x": normal(4, 6, seed=seed)} for seed in range(3)]
    found = measure_output_importance(Captured(feeds), model_of(proto), ["a", "b"], ["y"])
    b = onnx.numpy_helper.to_array(proto.graph.initializer[1])[:, 0]
    wanted = np.maximum(b**2 / (b**2).mean(), 0.1)
    np.testing.assert_allclose(found["a"], wanted / wanted.mean(), rtol=1e-5)
    np.testing.assert_array_equal(found["b"], [1.0])


def test_convolution_behind_a_unit_that_never_fires() -> None:
    """Channel 1 is negative everywhere, so no error of it shows: it gets the least there is."""
    weights = {
        "a": normal(3, 2, 1, 1, seed=1),
        "c": np.array([50.0, -50.0, 50.0], np.float32),
        "b": np.ones((1, 3, 3, 3), np.float32),
    }
    body = "h = Conv(x, a, c)  r = Relu(h)  y = Conv(r, b)"
    model = model_of(proto_of(_text(body, "n, 2, 5, 5"), weights))
    feeds = [{"x": normal(2, 2, 5, 5, seed=seed)} for seed in range(2)]
    found = measure_output_importance(Captured(feeds), model, ["a", "b"], ["y"])
    assert found["a"][0] == pytest.approx(found["a"][2], rel=0.5)
    assert found["a"][1] < 0.12


def test_what_is_not_followed_is_left_out() -> None:
    body = "h = MatMul(x, a)  s = CumSum(h, axis)  y = MatMul(s, b)"
    weights = {"a": normal(6, 5, seed=1), "b": normal(5, 2, seed=2), "axis": np.array(1, np.int64)}
    model = model_of(proto_of(_text(body, "n, 6"), weights))
    feeds = [{"x": normal(4, 6, seed=3)}]
    assert set(measure_output_importance(Captured(feeds), model, ["a", "b"], ["y"])) == {"b"}


@pytest.mark.parametrize("scheme", [Compensated, CompensatedTrellis])
def test_steps_by_output_take_fewer_bits_at_the_same_cost(
    scheme: type[Compensated | CompensatedTrellis],
) -> None:
    generator = np.random.default_rng(0)
    outputs, features = 128, 96
    weight = generator.standard_normal((outputs, features)).astype(np.float32)
    rows = generator.standard_normal((4000, features)) @ generator.standard_normal(
        (features, features)
    )
    inputs = (rows.T @ rows / 4000)[None].astype(np.float32)
    layout = MatrixLayout((0, 1), (1, outputs, features), (0,), (2,), (1,))
    counts = np.exp(2 * generator.standard_normal(outputs)).astype(np.float32)
    known = with_outputs(Moments(inputs, np.zeros((1, features), np.float32), 4000, layout), counts)

    def fitted(by_output: bool) -> tuple[float, float]:
        found = scheme(step=0.1, adaptive=by_output, by_output=by_output).fit(
            weight, FitContext(moments=known)
        )
        error = (found.decode() - weight).astype(np.float64)
        cost = counts @ np.einsum("oi,ij,oj->o", error, inputs[0].astype(np.float64), error)
        return float(cost), found.bits() / weight.size

    alike, counted = fitted(False), fitted(True)
    assert counted[0] < 1.15 * alike[0]
    assert counted[1] < alike[1] - 0.3


def test_importance_is_kept_with_the_moments(tmp_path: Path) -> None:
    path, names = tmp_path / "model.onnx", [f"w{i}" for i in range(6)]
    sizes = [6, 5, 7, 4, 9, 3, 1]
    weights = {n: normal(*sizes[i : i + 2], seed=i) for i, n in enumerate(names)}
    body = "  ".join(f"h{i + 1} = MatMul(h{i}, {name})" for i, name in enumerate(names))
    body = body.replace("h0", "x").replace("h6", "y")
    onnx.save(proto_of(_text(body, "n, 6"), weights), path)
    feeds = [{"x": normal(4, 6, seed=seed)} for seed in range(3)]
    source = read_source(path)
    wanted = measure_output_importance(Captured(feeds), source.model, names, ["y"])
    assert not moments_of(source, feeds, names, kept_in=tmp_path / "kept").was_kept
    kept = moments_of(source, feeds, names, kept_in=tmp_path / "kept")
    assert kept.was_kept
    for name in names:
        found = kept[name]
        assert isinstance(found, Moments) and found.outputs is not None
        np.testing.assert_allclose(found.outputs, wanted[name][None], rtol=1e-5)
