# SPDX-License-Identifier: Apache-2.0
"""Encoding weights: the chain's form, its values on stock ONNX Runtime, and the bytes it
reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from passes import (
    CleanUp,
    EncodeResult,
    EncodeWeights,
    ModelError,
    PackingLimits,
    SettingsError,
    WeightSettings,
    fit_weight,
    model_to_proto,
    select_weights,
)
from passes.schemes import Lossless, decode
from passes.schemes.coded_bits import coded_bits
from runtime.wide import short_rows
from tests.passes_models import model_of, network, normal, portable, proto_of, run

X = {"x": normal(2, 8, 10, 10, seed=9)}
HEADER = '< ir_version: 8, opset_import: ["" : 17] >'
LARGE = ("conv_w", "gemm_w", "matmul_w")
SETTINGS: list[dict[str, Any]] = [
    {"bits": 8},
    {"bits": 4, "symmetric": False},
    {"relative_step": 0.01},
    {"bits": 8, "granularity": "row"},
    {"bits": 4, "granularity": "group", "group_size": 16},
    {"bits": 10, "granularity": "row", "symmetric": False},
    {"bits": 10, "granularity": "group", "group_size": 24, "symmetric": False},
    {"scheme": "codebook", "entries": 16},
    {"scheme": "codebook", "entries": 200},
    {"scheme": "lossless"},
]


def encode(model: ir.Model, **plan: WeightSettings | dict[str, Any]) -> EncodeResult:
    ready = {
        n: s if isinstance(s, WeightSettings) else WeightSettings(**s) for n, s in plan.items()
    }
    result = EncodeWeights(ready)(model)
    assert isinstance(result, EncodeResult)
    return result


def nodes(model: ir.Model) -> list[str]:
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]


@pytest.mark.parametrize(
    ("opset", "dtype"),
    [(13, "float32"), (13, "float16"), (19, "float16"), (21, "float16"), (24, "float32")],
)
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_stock_runtime_decodes_the_fitted_weights(
    options: dict[str, Any], opset: int, dtype: str
) -> None:
    model = model_of(network(opset, dtype))
    settings = WeightSettings(**options)
    weights = {w.name: w for w in select_weights(model)}
    expected = {
        n: decode(fit_weight(weights[n].array(), settings, weights[n].channel_axis)) for n in LARGE
    }
    result = encode(model, **dict.fromkeys(LARGE, settings))
    assert result.modified and not set(LARGE) & {e.name for e in result.encoded if e.num_bytes <= 0}
    CleanUp()(model)
    done = [entry.name for entry in result.encoded]
    assert not set(done) & set(model.graph.initializers)
    proto = ir.serde.serialize_model(portable(model))
    onnx.checker.check_model(proto)
    values = run(proto, {"x": X["x"].astype(dtype)}, extra=done)
    for name in done:
        assert values[name].dtype == dtype and values[name].tobytes() == expected[name].tobytes(), (
            name
        )


def test_bfloat16_chain() -> None:
    text = """< ir_version: 8, opset_import: ["" : 21] >
    g (float[N,64] x) => (float[N,96] y) { c = Cast <to = 1> (w) y = MatMul (x, c) }"""
    weight = normal(64, 96).astype(ir.DataType.BFLOAT16.numpy())
    for options in ({"bits": 6}, {"scheme": "codebook"}):
        model = model_of(proto_of(text, {"w": weight}))
        encode(model, w=options)
        CleanUp()(model)
        fitted = fit_weight(weight, WeightSettings(**options), 1)  # type: ignore[arg-type]
        values = run(portable(model), {"x": normal(2, 64)})
        np.testing.assert_allclose(
            values["y"], normal(2, 64) @ decode(fitted).astype(np.float32), rtol=1e-4, atol=1e-4
        )


def test_one_segment_and_its_form() -> None:
    model = model_of(network())
    result = EncodeWeights(
        dict.fromkeys(LARGE, WeightSettings(bits=8, coder="wide")), limits=PackingLimits(small=0)
    )(model)
    assert nodes(model)[:7] == ["DecodeWide", *["TakeTensor", "DequantizeLinear"] * 3]
    assert model.opset_imports["toolkit"] == 1 and model.ir_version >= 8
    assert all(node.name is None for node in list(model.graph)[:7])
    take = model.graph[1]
    assert set(take.attributes) == {"lane", "lanes", "steps", "shape"}
    assert take.attributes["shape"].as_ints() == (32, 8, 3, 3)
    assert model.graph[2].outputs[0].name == "conv_w"
    assert [e.coder for e in result.encoded] == ["wide"] * 3


def test_segments_are_split() -> None:
    model = model_of(network())
    EncodeWeights(
        dict.fromkeys(LARGE, WeightSettings(bits=8, coder="wide")),
        limits=PackingLimits(segment=4000),
    )(model)
    assert nodes(model).count("DecodeWide") == 3
    assert run(portable(model), X)["y"].shape == (2, 48)


def test_lanes_are_as_short_as_a_gpu_wants_them() -> None:
    lanes, outputs = [], []
    for steps in (0, 24):
        model = model_of(network())
        EncodeWeights(
            dict.fromkeys(LARGE, WeightSettings(bits=8, coder="wide")),
            limits=PackingLimits(lane_steps=steps),
        )(model)
        takes = [node for node in model.graph if node.op_type == "TakeTensor"]
        lanes.append(sum(take.attributes["lanes"].as_int() for take in takes))
        outputs.append(run(portable(model), X)["y"])
    assert lanes[1] > 2 * lanes[0]
    np.testing.assert_array_equal(*outputs)


def test_long_rows_are_divided_where_they_can_be() -> None:
    assert short_rows((4096, 1, 4096), 512) == (4096, 8, 512)
    assert short_rows((64, 3, 11008), 512) == (192, 32, 344)
    assert short_rows((64, 1, 4099), 512) == (64, 1, 4099)
    assert short_rows((64, 1, 512), 512) == (64, 1, 512)
    assert short_rows((64, 1, 4096), 0) == (64, 1, 4096)


def test_an_adaptive_blob_holds_2_to_the_20_symbols() -> None:
    """More of them, here in tensors that are large together only, make more blobs."""
    text = """< ir_version: 8, opset_import: ["" : 17] > g (float[2,600] x) => (float[2,900] y) {
        a = MatMul (x, w0) b = MatMul (a, w1) y = MatMul (b, w2) }"""
    shapes = {"w0": (600, 900), "w1": (900, 700), "w2": (700, 900)}
    weights = {name: np.rint(2 * normal(*shape)) for name, shape in shapes.items()}
    model = model_of(proto_of(text, weights))
    settings = WeightSettings(step=1.0, coder="adaptive")
    result = encode(model, **dict.fromkeys(shapes, settings))
    assert {row.coder for row in result.encoded} == {"adaptive"}
    assert sum(node.op_type == "DecodeAdaptive" for node in model.graph) == 3
    huge = model_of(proto_of(text.replace("600", "1200"), weights | {"w0": normal(1200, 900)}))
    with pytest.raises(SettingsError, match="weight w0: coder adaptive cannot hold"):
        encode(huge, w0={"bits": 4, "coder": "adaptive"})


def test_16_bit_symbols_have_their_own_segment() -> None:
    model = model_of(network(21))
    encode(
        model,
        conv_w={"bits": 12, "coder": "wide"},
        gemm_w={"bits": 8, "coder": "wide"},
        matmul_w={"bits": 12, "coder": "wide"},
    )
    assert nodes(model).count("DecodeWide") == nodes(model).count("DecodeWide16") == 1


@pytest.mark.parametrize("coder", ["adaptive", "huffman", "fixed", "wide", "raw"])
def test_a_coder_asked_for_is_used(coder: str) -> None:
    model = model_of(network(17))
    options = {"bits": 4, "coder": coder}
    result = encode(model, **dict.fromkeys(LARGE, options))
    assert {entry.coder for entry in result.encoded} == {coder}
    CleanUp()(model)
    weights = {w.name: w for w in select_weights(model_of(network(17)))}
    values = run(portable(model), X, extra=list(LARGE))
    for name in LARGE:
        fitted = fit_weight(
            weights[name].array(), WeightSettings(bits=4), weights[name].channel_axis
        )
        assert np.array_equal(values[name], decode(fitted))


def test_bytes_add_up_to_the_file() -> None:
    model = model_of(network())
    result = EncodeWeights(dict.fromkeys(LARGE, WeightSettings(bits=8)))(model)
    CleanUp()(model)
    proto = model_to_proto(model)
    plain = model_to_proto(model_of(network()))
    before = plain.ByteSize() - sum(
        4 * np.prod(t.dims) for t in plain.graph.initializer if t.name in LARGE
    )
    reported = sum(entry.num_bytes for entry in result.encoded) + result.shared_bytes
    assert abs(proto.ByteSize() - before - reported) < 0.1 * proto.ByteSize()
    assert all(e.original_bytes == 4 * e.num_elements for e in result.encoded)


def test_minor_tensors_by_relative_step() -> None:
    model = model_of(network())
    text = "g (float[N,2000] x) => (float[N,2000] y) { h = Add (x, b) y = Mul (h, s) }"
    tensors = {"b": normal(2000), "s": normal(2000, seed=1)}
    model = model_of(proto_of('< ir_version: 8, opset_import: ["" : 17] >' + text, tensors))
    assert not EncodeWeights({})(model).modified
    result = EncodeWeights({}, minor_relative_step=0.01)(model)
    assert {e.role for e in result.encoded} == {"minor"} and len(result.encoded) == 2
    values = run(portable(model), {"x": np.ones((1, 2000), np.float32)}, extra=["b", "s"])
    assert 0 < np.abs(values["b"] - tensors["b"]).max() < 0.0052


def test_small_tensors_share_a_blob() -> None:
    names = [f"b{i}" for i in range(6)]
    body = "".join(f"h{i + 1} = Add (h{i}, {name}) " for i, name in enumerate(names))
    text = f"{HEADER} g (float[400] h0) => (float[400] h6) {{ {body} }}"
    tensors = {name: normal(400, seed=i) for i, name in enumerate(names)}
    model = model_of(proto_of(text, tensors))
    result = EncodeWeights({}, minor_relative_step=0.05)(model)
    assert len(result.encoded) == 6
    assert sum(v.dtype == ir.DataType.UINT16 for v in model.graph.initializers.values()) <= 1
    values = run(portable(model), {"h0": normal(400)}, extra=names)
    for name in names:
        step = 0.05 * np.sqrt(np.mean(tensors[name] ** 2))
        assert np.abs(values[name] - tensors[name]).max() <= 0.51 * step


def test_infinity_is_kept_lossless_and_nan_alone() -> None:
    text = (
        HEADER
        + """g (float[N,64] x) => (float[N,64] y) {
      h = MatMul (x, nan) y = MatMul (h, inf) }"""
    )
    tensors = {"nan": normal(64, 64), "inf": normal(64, 64)}
    tensors["nan"][3, 4] = np.nan
    tensors["inf"][3, 4] = -np.inf
    model = model_of(proto_of(text, tensors))
    result = encode(model, nan={"bits": 8}, inf={"bits": 8})
    assert result.notes == (
        "nan: kept as it is: it holds NaN",
        "inf: coded losslessly: the tensor holds NaN or infinity",
    )
    assert [(e.name, e.scheme) for e in result.encoded] == [("inf", "lossless")]
    assert "JoinFloat" in nodes(model) and "nan" in model.graph.initializers
    values = run(portable(model), {"x": normal(1, 64)}, extra=["inf"])
    assert values["inf"].tobytes() == tensors["inf"].tobytes()


@pytest.mark.parametrize(
    "kind, peak", [("int8", 0), ("uint8", 128), ("uint8", 119), ("uint8", 3), ("int8", -90)]
)
def test_quantised_weights_keep_their_integers(kind: str, peak: int) -> None:
    limits = np.iinfo(kind)
    wide = np.rint(normal(64, 96) * 6) + peak
    wide[0, :2] = limits.min, limits.max  # farther from the peak than int8 reaches
    weight = np.clip(wide, limits.min, limits.max).astype(kind)
    text = HEADER + "g (uint8[N,64] x) => (int32[N,96] y) { y = MatMulInteger (x, w) }"
    proto = proto_of(text, {"w": weight})
    model = model_of(proto)
    inputs = {"x": np.arange(128, dtype=np.uint8).reshape(2, 64)}
    result = encode(model, w={"scheme": "lossless"})
    assert result.modified
    values = run(portable(model), inputs, extra=["w"])
    assert np.array_equal(values["w"], weight) and np.array_equal(
        values["y"], run(proto, inputs)["y"]
    )


def test_asymmetric_integers_are_coded_around_their_peak() -> None:
    rows = np.exp(normal(256, 1))
    around_zero = np.rint(normal(256, 256) * 4 * rows)
    symmetric = np.clip(around_zero + 128, 0, 255).astype(np.uint8)
    asymmetric = np.clip(around_zero + 90, 0, 255).astype(np.uint8)
    first, second = (Lossless().fit(weight) for weight in (symmetric, asymmetric))
    assert (first.offset, second.offset) == (128, 90)
    assert second.symbols.dtype == np.int16 and np.array_equal(decode(second), asymmetric)
    assert coded_bits(second) < 1.02 * coded_bits(first)


def test_equal_integer_weights_stored_raw() -> None:
    weight = np.random.default_rng(0).integers(-128, 127, (40, 40)).astype(np.int8)
    text = (
        HEADER
        + """g (uint8[N,40] x) => (int32[N,40] y, int32[N,40] z) {
      y = MatMulInteger (x, v) z = MatMulInteger (x, w) }"""
    )
    model = model_of(proto_of(text, {"v": weight, "w": weight}))
    result = encode(model, v={"scheme": "lossless"}, w={"scheme": "lossless"})
    assert not result.modified and len(result.notes) == 2  # random bytes do not shrink


def test_shared_weight_in_branches_is_decoded_once_in_the_main_graph() -> None:
    text = """< ir_version: 8, opset_import: ["" : 17] >
    g (float[N,64] x, bool b) => (float[N,64] y) {
      a = MatMul (x, w)
      y = If (b) <
        then_branch = t () => (float[N,64] o) { o = MatMul (a, w) },
        else_branch = e () => (float[N,64] p) { q = MatMul (a, w) p = MatMul (q, v) }
      >
    }"""
    tensors = {"w": normal(64, 64), "v": normal(64, 64, seed=1)}
    model = model_of(proto_of(text, tensors))
    result = encode(model, w={"bits": 8}, v={"bits": 8})
    assert [e.name for e in result.encoded] == ["w", "v"]
    CleanUp()(model)
    assert [n.op_type for n in model.graph].count("DequantizeLinear") == 2
    plain = {n: decode(fit_weight(t, WeightSettings(bits=8))) for n, t in tensors.items()}
    for b in (True, False):
        inputs = {"x": normal(3, 64), "b": np.array(b)}
        expected = run(proto_of(text, plain), inputs)["y"]
        np.testing.assert_allclose(
            run(portable(model), inputs)["y"], expected, rtol=1e-4, atol=1e-2
        )


def test_function_input_weight() -> None:
    text = """< ir_version: 9, opset_import: ["" : 18, "local" : 1] >
    g (float[N,64] x) => (float[N,64] y) { y = local.dense (x, w) }
    < domain: "local", opset_import: ["" : 18] >
    dense (p, q) => (r) { r = MatMul (p, q) }"""
    model = model_of(proto_of(text, {"w": normal(64, 64)}))
    assert encode(model, w={"bits": 8}).modified
    CleanUp()(model)
    assert run(portable(model), {"x": normal(3, 64)})["y"].shape == (3, 64)


def test_transposed_convolution_weight_goes_back() -> None:
    text = """< ir_version: 8, opset_import: ["" : 17] >
    g (float[N,8,9,9] x) => (float[N,32,7,7] y) {
      t = Transpose <perm = [3,2,0,1]> (w) y = Conv (x, t) }"""
    weight = normal(3, 3, 8, 32)
    for options in (
        {"bits": 8, "granularity": "row"},
        {"bits": 8, "granularity": "group"},
        {"scheme": "codebook"},
    ):
        model = model_of(proto_of(text, {"w": weight}))
        encode(model, w=options)
        expected = decode(fit_weight(weight, WeightSettings(**options), 3))  # type: ignore[arg-type]
        assert np.array_equal(
            run(portable(model), {"x": normal(1, 8, 9, 9)}, extra=["w"])["w"], expected
        )


def test_what_is_left_alone() -> None:
    text = """< ir_version: 8, opset_import: ["" : 17] >
    g (float[N,64] x, float[64,64] a) => (float[N,64] y, float[64,64] b) {
      u = MatMul (x, a) v = MatMul (u, b) y = MatMul (v, tiny) }"""
    tensors = {
        "a": normal(64, 64),
        "b": normal(64, 64),
        "tiny": normal(64, 1)[:4],
        "dead": normal(64, 64),
    }
    model = model_of(proto_of(text, tensors))
    result = encode(model, **{n: {"bits": 8} for n in ("a", "b", "tiny", "dead")})
    assert not result.modified and len(result.notes) == 4
    assert not encode(model_of(network()), conv_w={"scheme": "keep"}).modified


def test_wrong_plans() -> None:
    with pytest.raises(ModelError, match="'nope': the model has no such initializer"):
        encode(model_of(network()), nope={"bits": 8})
    fitted = fit_weight(normal(3, 3), WeightSettings(bits=8))
    assert fitted is not None
    with pytest.raises(ModelError, match="'conv_w': expected parameters for"):
        EncodeWeights({"conv_w": fitted})(model_of(network()))


def test_fitted_parameters_are_taken_as_they_are() -> None:
    model = model_of(network())
    fitted = fit_weight(normal(96, 48, seed=4), WeightSettings(step=0.25))
    assert fitted is not None
    EncodeWeights({"matmul_w": fitted})(model)
    assert np.array_equal(run(portable(model), X, extra=["matmul_w"])["matmul_w"], decode(fitted))


def test_same_model_same_bytes() -> None:
    blobs = []
    for _ in range(2):
        model = model_of(network())
        encode(model, **dict.fromkeys(LARGE, {"bits": 6}))
        CleanUp()(model)
        blobs.append(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    assert blobs[0] == blobs[1]
