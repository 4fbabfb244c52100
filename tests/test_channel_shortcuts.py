# SPDX-License-Identifier: Apache-2.0
"""What a layer at the end of a residual branch is fitted to."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from passes.channels.layer_moments import measure
from passes.channels.layer_samples import MatrixLayer, matrix_layer, set_constant
from passes.channels.original_rows import OriginalRows
from passes.channels.shortcuts import shortcut_of
from passes.channels.trace import LayerUse
from tests.channel_models import Captured
from tests.passes_models import model_of, normal, proto_of, run

BRANCH = "s = Conv(x, w1, b1) k = Conv(x, w2, b2) r = Relu(k) c = Conv(r, w3, b3) "


def branch(end: str, outputs: str = "float[N,5,6,6] y") -> ir.Model:
    head = '< ir_version: 8, opset_import: ["" : 17] >\n'
    text = f"{head}net (float[N,4,6,6] x) => ({outputs}) {{ {BRANCH}{end} }}"
    shapes = {"w1": (5, 4, 1, 1), "w2": (8, 4, 1, 1), "w3": (5, 8, 1, 1)}
    tensors = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    tensors |= {"b1": normal(5), "b2": normal(8), "b3": normal(5), "one": normal(5, 1, 1)}
    return model_of(proto_of(text, tensors))


def last_layer(model: ir.Model) -> MatrixLayer:
    node = next(node for node in model.graph if node.outputs[0].name == "c")
    layer = matrix_layer(LayerUse(node, 1, 1, np.arange(8)))
    assert layer is not None
    return layer


@pytest.mark.parametrize("end", ["y = Add(s, c)", "y = Add(c, s)"])
def test_a_shortcut_is_found(end: str) -> None:
    found = shortcut_of(last_layer(branch(end)))
    assert found is not None and (found.total.name, found.other.name) == ("y", "s")


@pytest.mark.parametrize(
    ("end", "outputs"),
    [
        ("y = Add(c, one)", "float[N,5,6,6] y"),
        ("y = Add(c, c)", "float[N,5,6,6] y"),
        ("y = Mul(c, s)", "float[N,5,6,6] y"),
        ("t = Add(c, s) y = Add(t, c)", "float[N,5,6,6] y"),
        ("y = Add(c, s)", "float[N,5,6,6] y, float[N,5,6,6] c"),
    ],
)
def test_what_is_no_shortcut(end: str, outputs: str) -> None:
    assert shortcut_of(last_layer(branch(end, outputs))) is None


def test_the_layer_is_fitted_to_what_the_sum_lacks() -> None:
    """The original's sum less what the shortcut gives now, at every place."""
    original = branch("y = Add(c, s)")
    model = original.clone()
    set_constant(model.graph.initializers["w1"], normal(5, 4, 1, 1, seed=9))
    layer = last_layer(model)
    feeds = [{"x": normal(3, 4, 6, 6, seed=20 + i)} for i in range(2)]
    activations = Captured(feeds)
    originals = OriginalRows(activations, original, [layer], 0)
    (moments,) = measure(activations, model, [layer], originals)
    cross = np.zeros((9, 5))
    for feed in feeds:
        wanted = run(original, feed, ["y"])["y"]
        now = run(model, feed, ["r", "s"])
        rows = np.moveaxis(now["r"], 1, -1).reshape(-1, 8)
        rows = np.append(rows, np.ones((len(rows), 1), "f"), axis=1)
        cross += rows.T @ np.moveaxis(wanted - now["s"], 1, -1).reshape(-1, 5)
    assert moments.whole().count == 2 * 3 * 36
    np.testing.assert_allclose(moments.whole().cross, cross, rtol=1e-4, atol=1e-3)
    originals.close()


def test_a_sum_of_another_shape_is_not_taken() -> None:
    """A layer whose output is broadcast is fitted to its own output."""
    model = branch("f = Concat<axis=0>(s, s) y = Add(c, f)")
    assert shortcut_of(last_layer(model)) is not None
    layer, activations = last_layer(model), Captured([{"x": normal(1, 4, 6, 6)}])
    originals = OriginalRows(activations, model, [layer], 0)
    drawn = originals.drawn(layer, 0)
    assert drawn.shortcut is None and drawn.shape == (1, 5, 6, 6)
    (moments,) = measure(activations, model, [layer], originals)
    expected = np.square(run(model, {"x": normal(1, 4, 6, 6)}, ["c"])["c"]).sum((0, 2, 3))
    np.testing.assert_allclose(moments.whole().energy, expected, rtol=1e-4)
    originals.close()
