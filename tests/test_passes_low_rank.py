# SPDX-License-Identifier: Apache-2.0
"""Low rank, Tucker and sums in the graph: rebuilt weights, and layers that compute with factors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import passes
import runtime
from passes.schemes import (
    Codebook,
    FitContext,
    Lossless,
    LowRank,
    LowRankParameters,
    Parameters,
    Scheme,
    Sum,
    Tucker,
    TuckerParameters,
    Uniform,
)
from passes.schemes.unfolding import Reshape
from tests.passes_models import model_of, network, normal, portable, proto_of, run, saved

WEIGHTS = ("conv_w", "gemm_w", "matmul_w")
QUANTISED = Uniform(bits=8)
SCHEMES: dict[str, Scheme] = {
    "out_in": LowRank(rank=4, inner=QUANTISED),
    "spatial": LowRank(rank=4, reshape="spatial", inner=Uniform(bits=6, granularity="row")),
    "rank 0": LowRank(rank=0),
    "lossless": LowRank(rank=2, inner=Lossless()),
    "tucker": Tucker(ranks=(6, 4), inner=QUANTISED),
    "tucker of rank 0": Tucker(ranks=(0, 0)),
    "sum": Sum((Uniform(bits=3), Codebook(entries=3), LowRank(rank=2, inner=QUANTISED))),
    "nested": LowRank(rank=3, inner=Sum((Uniform(bits=3), Codebook(entries=3)))),
}
FACTORED: list[LowRank | Tucker] = [
    LowRank(rank=4),
    LowRank(rank=4, reshape="spatial"),
    Tucker(ranks=(6, 4)),
]


def fits(model: ir.Model, scheme: Scheme) -> dict[str, Parameters]:
    weights = {weight.name: weight for weight in passes.select_weights(model)}
    return {
        name: scheme.fit(weight.array(), FitContext(channel_axis=weight.channel_axis))
        for name, weight in weights.items()
        if name in WEIGHTS
    }


def rebuilt(proto: onnx.ModelProto, fitted: dict[str, Parameters]) -> ir.Model:
    """The plain model with the weights that ``fitted`` decode to."""
    model = model_of(proto)
    for name, parameters in fitted.items():
        model.graph.initializers[name].const_value = ir.Tensor(parameters.decode(), name=name)
    return model


def assert_close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-5) -> None:
    """Within a share of the largest magnitude."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    largest = float(np.abs(wanted).max())
    np.testing.assert_allclose(
        found.astype(np.float32), wanted.astype(np.float32), rtol=0, atol=tolerance * largest
    )


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("name", SCHEMES)
def test_chains_rebuild_the_weight(name: str, opset: int) -> None:
    """Sums of element-wise parts bit for bit, products within float32 round-off."""
    model = model_of(network(opset))
    fitted = fits(model, SCHEMES[name])
    result = passes.EncodeWeights(fitted)(model)
    assert {w.name for w in result.encoded} == set(WEIGHTS)
    decoded = run(portable(model), {"x": normal(1, 8, 10, 10)}, extra=list(WEIGHTS))
    for weight, parameters in fitted.items():
        assert_close(decoded[weight], parameters.decode(), 2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("is_sum", [True, False])
def test_half_types(dtype: str, is_sum: bool) -> None:
    """Sums of them are exact too, products within one step of the type."""
    kind = ir.DataType[dtype.upper()]
    sums = Sum((Uniform(bits=3), Codebook(entries=3), Uniform(bits=2, granularity="row")))
    scheme = sums if is_sum else LowRank(rank=5, inner=QUANTISED)
    text = """< ir_version: 8, opset_import: ["" : 17] >
    net () => (float[64,80] y) { y = Cast <to = 1> (w) }"""
    tensor = ir.serde.serialize_tensor(ir.Tensor(normal(64, 80).astype(kind.numpy()), name="w"))
    proto = proto_of(text)
    proto.graph.initializer.append(tensor)
    model = model_of(proto)
    fitted = scheme.fit(model.graph.initializers["w"].const_value.numpy())  # type: ignore[union-attr]
    assert passes.EncodeWeights({"w": fitted})(model).encoded
    wanted = fitted.decode().astype(np.float32)
    step = 0.0 if is_sum else 2.0**-10 if dtype == "float16" else 2.0**-7
    assert_close(run(portable(model), {})["y"], wanted, step)


@pytest.mark.parametrize("name", ["out_in", "spatial", "tucker", "sum", "rank 0"])
def test_three_ways_to_run(name: str, tmp_path: Path) -> None:
    model = model_of(network())
    fitted = fits(model, SCHEMES[name])
    passes.EncodeWeights(fitted)(model)
    x = {"x": normal(2, 8, 10, 10, seed=9)}
    wanted = run(rebuilt(network(), fitted), x)["y"]
    path = str(saved(ir.serde.serialize_model(portable(model)), tmp_path / "m.onnx"))
    providers = ["CPUExecutionProvider"]
    for mode in ("load", "stream"):
        session = runtime.InferenceSession(path, providers=providers, mode=mode)
        if name == "rank 0":
            assert not session.run(None, x)[0].any()
        else:
            assert_close(session.run(None, x)[0], wanted)
    if name != "rank 0":
        assert_close(run(onnx.load(path), x)["y"], wanted)


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("scheme", FACTORED)
def test_factors_compute_what_the_rebuilt_weight_does(scheme: LowRank | Tucker, opset: int) -> None:
    model, x = model_of(network(opset)), {"x": normal(2, 8, 10, 10, seed=9)}
    fitted = fits(model, scheme)
    result = passes.FactorizeWeights(fitted)(model)
    assert result.modified
    for name in set(WEIGHTS) & set(result.plan):  # those which stay
        model.graph.initializers[name].const_value = ir.Tensor(fitted[name].decode(), name=name)
    assert all(found.after < found.before for found in result.factorized)
    assert_close(run(model, x)["y"], run(rebuilt(network(opset), fitted), x)["y"])
    assert {found.name for found in result.factorized} == (
        {"conv_w"} if isinstance(scheme, Tucker) else set(WEIGHTS)
    )


@pytest.mark.parametrize("scheme", ["out_in", "spatial", "tucker"])
def test_factors_are_compressed_like_any_weight(scheme: str) -> None:
    model, x = model_of(network()), {"x": normal(2, 8, 10, 10, seed=9)}
    fitted = fits(model, SCHEMES[scheme])
    factors = passes.FactorizeWeights(fitted)(model)
    encoded = passes.EncodeWeights(factors.plan)(model)
    assert {w.name for w in encoded.encoded} == set(factors.plan)
    passes.CleanUp()(model)
    assert_close(run(portable(model), x)["y"], run(rebuilt(network(), fitted), x)["y"])


def test_a_scheme_is_fitted_by_the_pass() -> None:
    model = model_of(network())
    result = passes.FactorizeWeights({"gemm_w": LowRank(rank=3), "conv_b": LowRank(rank=1)})(model)
    assert [found.factors for found in result.factorized] == [("gemm_w.left", "gemm_w.right")]
    assert result.factorized[0].before == 96 * 32 and result.factorized[0].after == 3 * (96 + 32)
    assert "gemm_w" not in model.graph.initializers
    assert len(result.notes) == 1 and result.notes[0].startswith("conv_b: left alone: ")


CONV = """
< ir_version: 8, opset_import: ["" : 17] >
net (float[N,6,{height},{width}] x) => (float[N,10,H,W] y) {{
  y = Conv <{attributes}> (x, w{bias})
}}
"""
GEOMETRIES = [
    "pads = [1,2,0,1], strides = [2,3]",
    "dilations = [2,1], pads = [2,1,2,1]",
    'auto_pad = "SAME_UPPER", strides = [2,2]',
    'auto_pad = "SAME_LOWER", strides = [1,3]',
    'auto_pad = "VALID", kernel_shape = [3,3]',
]


@pytest.mark.parametrize("attributes", GEOMETRIES)
@pytest.mark.parametrize(
    "scheme", [LowRank(rank=2), LowRank(rank=2, reshape="spatial"), Tucker(ranks=(3, 2))]
)
def test_geometry_of_convolutions(scheme: LowRank | Tucker, attributes: str) -> None:
    text = CONV.format(height=13, width=11, attributes=attributes, bias=", b")
    tensors = {"w": normal(10, 6, 3, 3), "b": normal(10, seed=1)}
    proto, x = proto_of(text, tensors), {"x": normal(2, 6, 13, 11, seed=2)}
    fitted = {"w": scheme.fit(tensors["w"])}
    model = model_of(proto)
    result = passes.FactorizeWeights(fitted)(model)
    assert len(result.factorized) == 1
    assert [n.op_type for n in model.graph] == ["Conv"] * (3 if isinstance(scheme, Tucker) else 2)
    assert_close(run(model, x)["y"], run(rebuilt(proto, fitted), x)["y"])


@pytest.mark.parametrize("shape", [(10, 6, 5), (8, 6, 3, 3, 3)])
@pytest.mark.parametrize("reshape", ["out_in", "spatial"])
def test_convolutions_of_one_and_three_axes(shape: tuple[int, ...], reshape: Reshape) -> None:
    axes = ",".join(["9"] * (len(shape) - 2))
    text = f"""< ir_version: 8, opset_import: ["" : 17] >
    net (float[N,6,{axes}] x) => (float[N,{shape[0]},{axes}] y) {{
      y = Conv <auto_pad = "SAME_UPPER"> (x, w)
    }}"""
    proto = proto_of(text, {"w": normal(*shape)})
    fitted = {"w": LowRank(rank=2, reshape=reshape).fit(normal(*shape))}
    model, x = model_of(proto), {"x": normal(1, 6, *[9] * (len(shape) - 2))}
    assert passes.FactorizeWeights(fitted)(model).factorized
    assert_close(run(model, x)["y"], run(rebuilt(proto, fitted), x)["y"])


def multiply_accumulates(model: ir.Model, x: np.ndarray) -> int:
    """Of all Conv, from the shapes that ONNX Runtime produces."""
    proto = ir.serde.serialize_model(model)
    shapes = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    convs = [node for node in proto.graph.node if node.op_type == "Conv"]
    outputs = run(model, {"x": x}, extra=[node.output[0] for node in convs])
    return sum(
        outputs[node.output[0]].size * int(np.prod(shapes[node.input[1]][1:])) for node in convs
    )


@pytest.mark.parametrize(
    "scheme", [LowRank(rank=2), LowRank(rank=2, reshape="spatial"), Tucker(ranks=(3, 2))]
)
def test_multiply_accumulates_are_counted_as_they_run(scheme: LowRank | Tucker) -> None:
    text = CONV.format(height=13, width=12, attributes="pads = [1,1,1,1], strides = [2,3]", bias="")
    model, x = model_of(proto_of(text, {"w": normal(10, 6, 3, 3)})), normal(1, 6, 13, 12)
    before = multiply_accumulates(model, x)
    result = passes.FactorizeWeights({"w": scheme})(model)
    assert result.factorized[0].before == before
    assert result.factorized[0].after == multiply_accumulates(model, x)


def test_unknown_shapes_are_counted_for_each_position() -> None:
    """A first layer at all positions of the input costs more the more of them a stride skips."""
    tensors = {"w": normal(10, 6, 3, 3)}
    for strides, is_cheaper in (([1, 1], True), ([4, 4], False)):
        text = CONV.format(height="H0", width="W0", attributes=f"strides = {strides}", bias="")
        model = model_of(proto_of(text, tensors))
        result = passes.FactorizeWeights({"w": Tucker(ranks=(5, 5))})(model)
        assert bool(result.factorized) == is_cheaper
        assert list(result.plan) == (["w.last", "w.core", "w.first"] if is_cheaper else ["w"])


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Conv <group = 2> (x, w)", (10, 3, 3, 3)),
        ("y = ConvTranspose (x, w)", (6, 10, 3, 3)),
        ("t = Transpose <perm = [1,0,2,3]> (w) y = Conv (x, t)", (6, 10, 3, 3)),
    ],
)
def test_what_is_left_to_be_rebuilt(body: str, shape: tuple[int, ...]) -> None:
    text = f"""< ir_version: 8, opset_import: ["" : 17] >
    net (float[1,6,9,9] x) => (float[1,10,H,W] y) {{ {body} }}"""
    proto, x = proto_of(text, {"w": normal(*shape)}), {"x": normal(1, 6, 9, 9)}
    model = model_of(proto)
    result = passes.FactorizeWeights({"w": LowRank(rank=2, inner=QUANTISED)})(model)
    assert not result.modified and list(result.plan) == ["w"]
    passes.EncodeWeights(result.plan)(model)
    wanted = run(rebuilt(proto, {"w": result.plan["w"]}), x)["y"]
    assert_close(run(portable(model), x)["y"], wanted)


@pytest.mark.parametrize("rank", [0, 8, 12])
def test_a_rank_that_saves_no_arithmetic_is_rebuilt(rank: int) -> None:
    text = """< ir_version: 8, opset_import: ["" : 17] >
    net (float[N,16] x) => (float[N,16] y) { y = MatMul (x, w) }"""
    model = model_of(proto_of(text, {"w": normal(16, 16)}))
    result = passes.FactorizeWeights({"w": LowRank(rank=rank)})(model)
    assert not result.factorized and isinstance(result.plan["w"], LowRankParameters)


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul (w, x)",
        "t = Gemm <transA = 1, transB = 1, alpha = 0.5> (x, w) y = Transpose (t)",
        "t = Gemm <transA = 1, alpha = 0.5, beta = 2.0> (x, w, b) y = Transpose (t)",
        "a = MatMul (w, x) t = Relu (a) y = MatMul (w, t)",
    ],
)
def test_forms_of_matrix_products(body: str) -> None:
    text = f"""< ir_version: 8, opset_import: ["" : 17] >
    net (float[24,5] x) => (float[24,5] y) {{ {body} }}"""
    tensors = {"w": normal(24, 24)} | ({"b": normal(24, seed=3)} if ", b)" in body else {})
    proto, x = proto_of(text, tensors), {"x": normal(24, 5, seed=1)}
    fitted = {"w": LowRank(rank=3).fit(tensors["w"])}
    model = model_of(proto)
    result = passes.FactorizeWeights(fitted)(model)
    uses = body.count("w")
    assert result.factorized[0].before == uses * 5 * 24 * 24
    assert result.factorized[0].after == uses * 5 * 3 * 48
    assert_close(run(model, x)["y"], run(rebuilt(proto, fitted), x)["y"])


def test_a_weight_of_a_subgraph_and_taken_names() -> None:
    text = """< ir_version: 8, opset_import: ["" : 17] >
    net (bool c, float[N,16] x) => (float[N,16] y) {
      y = If (c) <
        then_branch = one () => (float[N,16] a) { a = MatMul (x, w) },
        else_branch = two () => (float[N,16] b) { b = Identity (x) }
      >
    }"""
    tensors = {"w": normal(16, 16), "w.left": normal(3)}
    model, fitted = model_of(proto_of(text, tensors)), LowRank(rank=2).fit(tensors["w"])
    result = passes.FactorizeWeights({"w": fitted})(model)
    assert result.factorized[0].factors == ("w.left_1", "w.right")
    x = normal(4, 16, seed=1)
    assert_close(run(model, {"c": np.array(True), "x": x})["y"], x @ fitted.decode())


def test_wrong_plans_are_refused() -> None:
    model = model_of(network())
    with pytest.raises(passes.ModelError, match="no such initializer"):
        passes.FactorizeWeights({"nothing": LowRank(rank=1)})(model)
    other: TuckerParameters = Tucker(ranks=(1, 1)).fit(normal(3, 3))
    with pytest.raises(passes.ModelError, match="gemm_w.*expected"):
        passes.FactorizeWeights({"gemm_w": other})(model)
