# SPDX-License-Identifier: Apache-2.0
"""Packed mode: products that read packed weights, in sessions and by their function bodies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import runtime
from passes.function_bodies import function_bodies
from runtime import InferenceSession, ProviderError, gpu, graph_fuse, graph_pack
from runtime.packed import BITS
from tests.decode_models import CPU, Array, look_up, model, node, std, symbols, take
from tests.packed_samples import PackedSample, packed_samples

HALF = np.float16


def product_model(
    values: Array, chain: str, product: str = "MatMul", **settings: Any
) -> tuple[onnx.ModelProto, Array]:
    """A model of one float16 product with a compressed weight, and the weight [inputs, outputs]."""
    random = np.random.default_rng(0)
    rows, columns = values.shape
    turned = product == "Gemm"
    blob = runtime.encode_wide([values[None]])
    nodes = [node("DecodeWide", ["blob"], ["s"]), take(blob, 0, "s", "q", values.shape)]
    constants: dict[str, Array] = {"blob": blob}
    if chain == "codebook":
        constants["book"] = np.sort(random.normal(size=256)).astype(HALF)
        constants["offset"] = np.array(128, np.int32)
        nodes += look_up("q", "w")
        weight = constants["book"][values.astype(int) + 128]
    else:
        axis = {"outputs": 0 if turned else 1, "inputs": 1 if turned else 0}
        shape: tuple[int, ...] = ()
        attributes: dict[str, int] = {}
        if chain == "columns":
            attributes["axis"] = axis["outputs"]
            shape = (values.shape[axis["outputs"]],)
        elif chain == "blocks":
            attributes |= {"axis": axis["inputs"], "block_size": settings["block"]}
            shape = tuple(
                -(-n // settings["block"]) if i == axis["inputs"] else n
                for i, n in enumerate(values.shape)
            )
        constants["scale"] = random.uniform(0.01, 0.1, shape).astype(HALF)
        inputs = ["q", "scale"]
        if settings.get("zeros"):
            constants["zero"] = random.integers(-3, 3, shape).astype(np.int8)
            inputs.append("zero")
        nodes.append(std("DequantizeLinear", inputs, ["w"], **attributes))
        wide = onnxruntime.InferenceSession(
            model(
                [std("DequantizeLinear", inputs, ["w"], **attributes)],
                {"q": values, **{k: constants[k] for k in inputs[1:]}},
                ["w"],
            ).SerializeToString(),
            providers=CPU,
        )
        weight = wide.run(None, {})[0]
    if turned:
        constants["bias"] = random.normal(size=rows).astype(HALF)
        nodes.append(std("Gemm", ["x", "w", "bias"], ["y"], transB=1))
    else:
        nodes.append(std("MatMul", ["x", "w"], ["y"]))
    size = columns if turned else rows
    made = model(nodes, constants, ["y"], [("x", TensorProto.FLOAT16, ["batch", size])])
    return made, weight.T if turned else weight


CASES = [
    ("one scale", "MatMul", 1.0, {}),
    ("columns", "MatMul", 1.0, {"zeros": True}),
    ("columns", "MatMul", 20.0, {}),
    ("columns", "Gemm", 1.0, {"zeros": True}),
    ("blocks", "MatMul", 1.0, {"block": 64, "zeros": True}),
    ("blocks", "Gemm", 1.0, {"block": 64}),
    ("codebook", "MatMul", 1.0, {}),
    ("codebook", "Gemm", 20.0, {}),
]


@pytest.mark.parametrize(("chain", "product", "spread", "settings"), CASES)
def test_packed_products_are_those_of_the_model(
    chain: str, product: str, spread: float, settings: dict[str, Any]
) -> None:
    values = symbols((40, 192) if product == "Gemm" else (192, 40), 3, spread)
    if spread == 1.0:
        values = np.clip(values, -8, 7)
    proto, weight = product_model(values, chain, product, **settings)
    fused = onnx.ModelProto()
    fused.CopyFrom(proto)
    graph_fuse.fuse(fused)
    assert graph_pack.pack(fused) == 1
    ops = [n.op_type for n in fused.graph.node]
    assert not any(op.startswith("Decode") for op in ops)
    packed = next(n for n in fused.graph.node if n.op_type.startswith("MatMulPacked"))
    bits = next(a.i for a in packed.attribute if a.name == "bits")
    span = int(values.max()) - int(values.min())
    assert bits == span.bit_length()
    x = np.random.default_rng(1).normal(size=(5, weight.shape[0])).astype(HALF)
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    if product == "Gemm":
        bias = next(t for t in proto.graph.initializer if t.name == "bias")
        exact = exact + onnx.numpy_helper.to_array(bias).astype(np.float64)
    session = InferenceSession(proto.SerializeToString(), providers=CPU, residency="packed")
    found = session.run(None, {"x": x})[0]
    assert found.dtype == HALF
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3 * np.abs(exact).max())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("chain", "settings"),
    [
        ("columns", {}),
        ("blocks", {"block": 32}),
        ("blocks", {"block": 96, "zeros": True}),
        ("codebook", {}),
    ],
)
def test_weights_are_kept_in_their_own_width(
    bits: int, chain: str, settings: dict[str, Any]
) -> None:
    """Also of inputs that fill no chunk, and are no multiple of eight."""
    values = np.random.default_rng(bits).integers(0, 1 << bits, (2 * 256 - 5, 33))
    values = (values - (1 << (bits - 1))).astype(np.int8)
    values[:2, 0] = -1 << (bits - 1), (1 << (bits - 1)) - 1
    proto, weight = product_model(values, chain, **settings)
    fused = onnx.ModelProto()
    fused.CopyFrom(proto)
    graph_fuse.fuse(fused)
    assert graph_pack.pack(fused) == 1
    (words,) = (t for t in fused.graph.initializer if t.name.endswith("_packed"))
    assert math.prod(words.dims) * 32 == 3 * 16 * 512 * bits
    x = np.random.default_rng(1).normal(size=(3, len(values))).astype(HALF)
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    found = InferenceSession(proto.SerializeToString(), providers=CPU, mode="packed").run(
        None, {"x": x}
    )[0]
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3 * np.abs(exact).max())


@pytest.mark.parametrize("sample", list(packed_samples()), ids=lambda s: s.name)
@pytest.mark.parametrize("opset", [13, 21])
def test_function_bodies_compute_the_same(sample: PackedSample, opset: int) -> None:
    product = sample.product
    op = "MatMulPackedCodebook" if "codebook" in sample.arrays else "MatMulPacked"
    arrays = dict(sample.arrays)
    if op == "MatMulPacked" and "zeros" not in arrays:
        arrays["zeros"] = np.full_like(arrays["scales"], product.zero)
    group = product.group_inputs or product.inputs
    sizes = {"N": product.outputs, "K": product.inputs, "bits": product.bits, "block_size": group}
    nodes = [node(op, ["x", *arrays], ["y"], **sizes)]
    inputs = [("x", TensorProto.FLOAT16, ["batch", product.inputs])]
    proto = model(nodes, arrays, ["y"], inputs, opset=opset)
    x = sample.x_of(3)
    options = onnxruntime.SessionOptions()
    runtime.register(options)
    with_library = onnxruntime.InferenceSession(proto.SerializeToString(), options, CPU)
    assert with_library.get_outputs()[0].shape == ["batch", product.outputs]
    sample.check(x, with_library.run(None, {"x": x})[0])
    proto.functions.extend(function_bodies({op}, opset))
    stock = onnxruntime.InferenceSession(proto.SerializeToString(), providers=CPU)
    sample.check(x, stock.run(None, {"x": x})[0])


def test_the_body_of_a_loop_reads_packed_what_is_decoded_around_it() -> None:
    values = np.clip(symbols((24, 24), 3, 1.0), -4, 3)
    blob = runtime.encode_wide([values[None]])
    half, value = TensorProto.FLOAT16, helper.make_tensor_value_info
    body = helper.make_graph(
        [std("MatMul", ["s", "w"], ["t"]), std("Identity", ["go"], ["on"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("s", half, None),
        ],
        [value("on", TensorProto.BOOL, []), value("t", half, None)],
    )
    nodes = [
        node("DecodeWide", ["blob"], ["symbols"]),
        take(blob, 0, "symbols", "q", values.shape),
        std("DequantizeLinear", ["q", "scale"], ["w"]),
        std("Loop", ["turns", "", "x"], ["y"], body=body),
    ]
    constants = {"blob": blob, "scale": np.float16(0.1), "turns": np.array(2, np.int64)}
    proto = model(nodes, constants, ["y"], [("x", half, ["batch", 24])])
    content = proto.SerializeToString()
    graph_fuse.fuse(proto)
    assert graph_pack.pack(proto) == 1
    assert [n.op_type for n in proto.graph.node] == ["Loop"]
    session = InferenceSession(content, providers=CPU, mode="packed")
    x = np.random.default_rng(1).normal(size=(3, 24)).astype(HALF)
    weight = values.astype(np.float64) * float(np.float16(0.1))
    found = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(found, x.astype(np.float64) @ weight @ weight, rtol=1e-2, atol=1e-2)


def test_what_cannot_be_packed_is_decoded_at_every_run() -> None:
    wide = symbols((192, 40), 3, 90.0, np.int16)
    few = np.clip(symbols((192, 40), 3, 1.0), -8, 7)
    for values, shape, block in ((wide, (40,), {}), (few, (12, 40), {"axis": 0, "block_size": 16})):
        blob = runtime.encode_wide([values[None]])
        op = "DecodeWide16" if values.dtype == np.int16 else "DecodeWide"
        nodes = [
            node(op, ["blob"], ["s"]),
            take(blob, 0, "s", "q", values.shape),
            std("DequantizeLinear", ["q", "scale"], ["w"], **block),
            std("MatMul", ["x", "w"], ["y"]),
        ]
        constants = {"blob": blob, "scale": np.full(shape, 0.01, HALF)}
        inputs = [("x", TensorProto.FLOAT16, ["batch", len(values)])]
        proto = model(nodes, constants, ["y"], inputs)
        x = np.random.default_rng(1).normal(size=(2, len(values))).astype(HALF)
        found = [
            InferenceSession(proto.SerializeToString(), providers=CPU, residency=residency).run(
                None, {"x": x}
            )[0]
            for residency in ("dense", "packed", "stream")
        ]
        np.testing.assert_allclose(found[1], found[0], rtol=2e-2, atol=2e-2)
        np.testing.assert_array_equal(found[1], found[2])
        graph_fuse.fuse(proto)
        assert graph_pack.pack(proto) == 0


def test_a_weight_that_others_read_stays() -> None:
    proto, _ = product_model(np.clip(symbols((192, 40), 3, 1.0), -8, 7), "columns")
    proto.graph.node.append(helper.make_node("Identity", ["w"], ["z"]))
    proto.graph.output.append(onnx.ValueInfoProto(name="z"))
    graph_fuse.fuse(proto)
    assert graph_pack.pack(proto) == 0


def test_residency_and_mode_must_agree() -> None:
    proto, _ = product_model(np.clip(symbols((192, 40), 3, 1.0), -8, 7), "columns")
    content = proto.SerializeToString()
    with pytest.raises(ValueError, match="contradicts"):
        InferenceSession(content, providers=CPU, mode="stream", residency="packed")
    with pytest.raises(ValueError, match="residency is 'sparse'"):
        InferenceSession(content, providers=CPU, residency="sparse")  # type: ignore[arg-type]


@pytest.mark.skipif(not gpu.why_not(), reason="there is a GPU")
@pytest.mark.parametrize("residency", ["dense", "packed", "stream"])
def test_without_a_gpu_no_session_falls_back_to_the_cpu(residency: Any) -> None:
    proto, _ = product_model(np.clip(symbols((192, 40), 3, 1.0), -8, 7), "columns")
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        InferenceSession(
            proto.SerializeToString(), providers=["CUDAExecutionProvider"], residency=residency
        )
