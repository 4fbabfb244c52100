# SPDX-License-Identifier: Apache-2.0
"""Folding of batch normalisation: the model computes the same, and what cannot be folded stays."""

from __future__ import annotations

import re

import numpy as np
import pytest

from passes import FoldBatchNorm
from tests.passes_models import model_of, normal, proto_of, run

HEAD = '< ir_version: 8, opset_import: ["" : 17] >\n'
NORM = "{0} = BatchNormalization<epsilon = 0.01>({1}, gamma, beta, mean, var)"
IMAGE, ROW = "float[N,4,5,5] x", "float[N,4] x"


def tensors_for(body: str, **more: np.ndarray) -> dict[str, np.ndarray]:
    shapes = {"gamma": (6,), "beta": (6,), "mean": (6,), "var": (6,), "w": (6, 4, 3, 3), "b": (6,)}
    tensors = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    tensors["var"] = np.abs(tensors["var"]) + 0.1
    tensors |= more
    return {name: array for name, array in tensors.items() if re.search(rf"\b{name}\b", body)}


def graph(body: str, given: str = IMAGE) -> str:
    return HEAD + f"net ({given}) => (float y) {{ {body} }}"


@pytest.mark.parametrize(
    ("layer", "given", "weight"),
    [
        ("Conv(x, w, b)", IMAGE, (6, 4, 3, 3)),
        ("Conv(x, w)", IMAGE, (6, 4, 3, 3)),
        ("Conv<group=2>(x, w, b)", IMAGE, (6, 2, 3, 3)),
        ("ConvTranspose(x, w, b)", IMAGE, (4, 6, 2, 2)),
        ("ConvTranspose<group=2>(x, w)", IMAGE, (4, 3, 2, 2)),
        ("Gemm(x, w, b)", ROW, (4, 6)),
        ("Gemm<transB=1, alpha=0.5, beta=0.25>(x, w, b)", ROW, (6, 4)),
        ("Gemm<beta=3.0>(x, w)", ROW, (4, 6)),
    ],
)
def test_the_folded_model_computes_the_same(
    layer: str, given: str, weight: tuple[int, ...]
) -> None:
    body = f"c = {layer} {NORM.format('y', 'c')}"
    proto = proto_of(graph(body, given), tensors_for(body, w=normal(*weight, seed=9)))
    feed = {"x": normal(*(3, 4, 5, 5)[: 4 if given == IMAGE else 2], seed=8)}
    expected = run(proto, feed)["y"]
    model = model_of(proto)
    assert FoldBatchNorm()(model).modified
    assert [node.op_type for node in model.graph] == [layer.split("(")[0].split("<")[0]]
    assert len(model.graph.initializers) == 2
    np.testing.assert_allclose(run(model, feed)["y"], expected, rtol=1e-4, atol=1e-5)
    assert not FoldBatchNorm()(model).modified


def test_one_number_as_bias_becomes_one_for_each_channel() -> None:
    body = f"c = Gemm(x, w, b) {NORM.format('y', 'c')}"
    tensors = tensors_for(body, w=normal(4, 6, seed=9), b=np.array([0.5], "f"))
    proto, feed = proto_of(graph(body, ROW), tensors), {"x": normal(3, 4)}
    model = model_of(proto)
    assert FoldBatchNorm()(model).modified
    np.testing.assert_allclose(run(model, feed)["y"], run(proto, feed)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        f"c = Conv(x, w, b) r = Relu(c) {NORM.format('y', 'r')}",
        f"c = Conv(x, w, b) {NORM.format('n', 'c')} y = Add(n, c)",
        f"c = Conv(x, w, b) d = Conv(x, w, b) {NORM.format('n', 'c')} y = Add(n, d)",
        f"c = Conv(x, w, b) s = Relu(var) {NORM.format('y', 'c').replace('var', 's')}",
    ],
)
def test_what_cannot_be_folded_stays(body: str) -> None:
    model = model_of(proto_of(graph(body), tensors_for(body)))
    count = len(model.graph)
    assert not FoldBatchNorm()(model).modified and len(model.graph) == count


def test_a_variance_that_is_not_positive_stays() -> None:
    body = f"c = Conv(x, w, b) {NORM.format('y', 'c')}"
    model = model_of(proto_of(graph(body), tensors_for(body, var=np.full(6, -1, "f"))))
    assert not FoldBatchNorm()(model).modified
