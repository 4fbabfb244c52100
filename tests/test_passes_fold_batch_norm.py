# SPDX-License-Identifier: Apache-2.0
"""Folding of BatchNormalization: what is folded computes the same, what must not be is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import passes
from tests.passes_models import model_of, normal, proto_of, run, saved
from toolkit.compress_model import compress

HEAD = '< ir_version: 8, opset_import: ["" : 17] >\n'
PARAMETERS = {
    "s": normal(6, seed=1),
    "o": normal(6, seed=2),
    "m": normal(6, seed=3),
    "v": np.abs(normal(6, seed=4)) + np.float32(0.1),
}
NORM = "BatchNormalization <epsilon = 0.01>"
LAYERS = {
    "conv": ("float[2,4,5,5]", "h = Conv (x, w, b)", (6, 4, 3, 3)),
    "conv without bias": ("float[2,4,5,5]", "h = Conv <group = 2> (x, w)", (6, 2, 3, 3)),
    "transposed": ("float[2,4,5,5]", "h = ConvTranspose <group = 2> (x, w, b)", (4, 3, 3, 3)),
    "gemm": ("float[2,4]", "h = Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", (4, 6)),
    "gemm transposed": ("float[2,4]", "h = Gemm <transB = 1> (x, w)", (6, 4)),
}


def built(body: str, given: str, shape: tuple[int, ...], result: str = "y") -> onnx.ModelProto:
    rank = "?," * (given.count(",") + 1)
    text = f"{HEAD} g ({given} x) => (float[{rank[:-1]}] {result}) {{ {body} }}"
    tensors = {"w": normal(*shape), **PARAMETERS}
    return proto_of(text, tensors | ({"b": normal(6, seed=5)} if "b)" in body else {}))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("behind", ["", "y = Relu (n)"], ids=["output", "inside"])
def test_outputs_stay(name: str, behind: str) -> None:
    given, layer, shape = LAYERS[name]
    proto = built(
        f"{layer} {'n' if behind else 'y'} = {NORM} (h, s, o, m, v) {behind}", given, shape
    )
    model = model_of(proto)
    dims = [int(d) for d in given[6:-1].split(",")]
    x = {"x": normal(*dims, seed=9)}
    before = run(proto, x)["y"]
    result = passes.FoldBatchNorm()(model)
    assert result.folded == ("w",) and result.modified
    assert "BatchNormalization" not in {node.op_type for node in model.graph}
    np.testing.assert_allclose(run(model, x)["y"], before, rtol=1e-5, atol=1e-5)
    assert [v.name for v in model.graph.outputs] == ["y"]
    assert {"w"} <= set(model.graph.initializers)
    assert not passes.FoldBatchNorm()(model).modified


@pytest.mark.parametrize(
    "body",
    [
        "h = Conv (x, w) y = BatchNormalization (x, s, o, m, v)",
        "h = Conv (x, w) n = BatchNormalization (h, s, o, m, v) y = Add (n, h)",
        "h = Conv (x, w) z = Conv (x, w) n = BatchNormalization (h, s, o, m, v) y = Add (n, z)",
        "h = Conv (x, w) t = Exp (v) y = BatchNormalization (h, s, o, m, t)",
        "h = Conv (x, w) r = Relu (h) y = BatchNormalization (r, s, o, m, v)",
    ],
    ids=["no layer", "read twice", "shared weight", "computed", "not next to it"],
)
def test_what_is_left_alone(body: str) -> None:
    model = model_of(built(body, "float[2,6,5,5]", (6, 6, 1, 1)))
    before = [node.op_type for node in model.graph]
    result = passes.FoldBatchNorm()(model)
    assert not result.modified and not result.folded
    assert [node.op_type for node in model.graph] == before


def test_a_scale_beyond_the_type_is_left_alone() -> None:
    proto = built(
        "h = Conv (x, w) y = BatchNormalization (h, s, o, m, v)", "float[2,4,5,5]", (6, 4, 1, 1)
    )
    for tensor in proto.graph.initializer:
        if tensor.name == "s":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, 3e38, np.float32), "s"))
        if tensor.name == "v":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(6, np.float32), "v"))
    assert not passes.FoldBatchNorm()(model_of(proto)).modified


def test_a_bias_that_others_read_stays_as_it_is() -> None:
    body = "h = Conv (x, w, b) n = BatchNormalization (h, s, o, m, v) y = Conv (n, w2, b)"
    proto = built(body, "float[2,4,5,5]", (6, 4, 1, 1))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(6, 6, 1, 1, seed=7), "w2"))
    if not any(t.name == "b" for t in proto.graph.initializer):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(6, seed=5), "b"))
    model, x = model_of(proto), {"x": normal(2, 4, 5, 5, seed=9)}
    before = run(proto, x)["y"]
    passes.FoldBatchNorm()(model)
    assert "w_bias" in model.graph.initializers
    np.testing.assert_allclose(run(model, x)["y"], before, rtol=1e-5, atol=1e-5)


def test_compress_folds_and_drops_dead_weights_but_not_where_bits_are_kept(tmp_path: Path) -> None:
    body = f"h = Conv (x, w) dead = Conv (x, unused) y = {NORM} (h, s, o, m, v)"
    proto = built(body, "float[2,6,5,5]", (6, 6, 3, 3))
    wide = {"w": normal(6, 256, 3, 3), "unused": normal(6, 256, 3, 3, seed=6)}
    proto = proto_of(
        HEAD + f"g (float[2,256,5,5] x) => (float[2,6,3,3] y) {{ {body} }}", {**PARAMETERS, **wide}
    )
    path = saved(proto, tmp_path / "m.onnx")
    report = compress(path, tmp_path / "s.onnx", bits=8)
    assert "1 BatchNormalization folded into the layer before it" in report.notes
    assert [row.name for row in report.tensors] == ["w"]
    assert report.fidelity.sqnr_db > 30
    for given in ({"lossless": True}, {"recipe": "lossless"}):
        report = compress(path, tmp_path / "l.onnx", **given)  # type: ignore[arg-type]
        nodes = onnx.load(tmp_path / "l.onnx").graph.node
        assert any(node.op_type == "BatchNormalization" for node in nodes)
        assert report.fidelity.sqnr_db == np.inf
