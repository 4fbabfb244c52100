# SPDX-License-Identifier: Apache-2.0
"""Packed mode: convolutions whose weights are unpacked for the provider's operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

import runtime
from passes.function_bodies import function_bodies
from runtime import InferenceSession, graph_fuse, graph_pack
from runtime.graph_products import CPU_TYPES, CUDA_TYPES, fuse_products
from runtime.packed import BITS
from tests.decode_models import CPU, Array, look_up, model, node, std, take

FLOAT = TensorProto.FLOAT
FILTERS = (21, 5, 3, 3)


def conv_model(
    bits: int, chain: str, shape: tuple[int, ...] = FILTERS, **settings: Any
) -> tuple[onnx.ModelProto, Array]:
    """A model of one convolution with a compressed weight and a bias, and the weight."""
    random = np.random.default_rng(bits)
    values = random.integers(0, 1 << bits, shape) - (1 << (bits - 1))
    values.reshape(-1)[:2] = -1 << (bits - 1), (1 << (bits - 1)) - 1
    values = values.astype(np.int8)
    blob = runtime.encode_wide([values.reshape(shape[0], -1, shape[-1])])
    nodes = [node("DecodeWide", ["blob"], ["s"]), take(blob, 0, "s", "q", shape)]
    constants: dict[str, Array] = {"blob": blob}
    column = (-1, *[1] * (len(shape) - 1))
    if chain == "codebook":
        constants["book"] = random.normal(size=256).astype(np.float32)
        constants["offset"] = np.array(128, np.int32)
        nodes += look_up("q", "w")
        weight = constants["book"][values.astype(int) + 128]
    elif chain == "zeros":
        scale = random.uniform(0.01, 0.1, shape[0]).astype(np.float32)
        zero = random.integers(-9, 9, shape[0]).astype(np.int8)
        constants |= {"scale": scale, "zero": zero}
        nodes.append(std("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0))
        centred = values.astype(np.int32) - zero.reshape(column)
        weight = centred.astype(np.float32) * scale.reshape(column)
    else:
        constants["scale"] = np.float32(0.03)
        nodes.append(std("DequantizeLinear", ["q", "scale"], ["w"]))
        weight = values.astype(np.float32) * np.float32(0.03)
    constants["bias"] = random.normal(size=shape[0]).astype(np.float32)
    nodes.append(std("Conv", ["x", "w", "bias"], ["y"], **settings))
    dims = ["batch", shape[1] * settings.get("group", 1), *["size"] * (len(shape) - 2)]
    return model(nodes, constants, ["y"], [("x", FLOAT, dims)]), weight


def packed(proto: onnx.ModelProto, types: Any = CPU_TYPES) -> tuple[int, onnx.ModelProto]:
    fused = onnx.ModelProto()
    fused.CopyFrom(proto)
    graph_fuse.fuse(fused)
    return graph_pack.pack(fused, types=types), fused


def plain_run(weight: Array, proto: onnx.ModelProto, x: Array, **settings: Any) -> Array:
    """The provider's operator, with the weight as an input."""
    bias = next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "bias")
    dims = [f"d{n}" for n in range(x.ndim)]
    inputs = [("x", FLOAT, dims), ("w", FLOAT, weight.shape)]
    plain = model(
        [std("Conv", ["x", "w", "bias"], ["y"], **settings)], {"bias": bias}, ["y"], inputs
    )
    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=CPU)
    return session.run(None, {"x": x, "w": weight})[0]


def x_of(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("chain", ["one scale", "zeros", "codebook"])
def test_convolutions_are_those_of_the_weight(bits: int, chain: str) -> None:
    proto, weight = conv_model(bits, chain, strides=[2, 1], pads=[1, 0, 1, 2])
    count, made = packed(proto)
    assert count == 1
    (conv,) = made.graph.node
    assert conv.op_type == ("ConvPackedCodebook" if chain == "codebook" else "ConvPacked")
    (words,) = (t for t in made.graph.initializer if t.name.endswith("_packed"))
    chunk = 256 >> (bits.bit_length() - 1)
    assert words.dims[0] * 32 == bits * 32 * (-(-45 // chunk) * chunk)  # 21 x 45, filled up
    session = InferenceSession(proto.SerializeToString(), providers=CPU, mode="packed")
    x = x_of(2, 5, 9, 9)
    wanted = plain_run(weight, proto, x, strides=[2, 1], pads=[1, 0, 1, 2])
    for _ in range(2):
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], wanted)


@pytest.mark.parametrize(
    ("shape", "settings", "x"),
    [
        ((12, 4, 5), {"group": 3, "strides": [2]}, (2, 12, 21)),
        ((7, 3, 2, 3, 3), {"dilations": [1, 2, 1]}, (1, 3, 5, 8, 7)),
        ((33, 64, 1, 1), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (3, 64, 7, 7)),
        ((8, 1, 3, 3), {"group": 8}, (1, 8, 6, 6)),
    ],
)
def test_convolutions_of_every_kind(
    shape: tuple[int, ...], settings: dict[str, Any], x: tuple[int, ...]
) -> None:
    proto, weight = conv_model(3, "zeros", shape, **settings)
    assert packed(proto)[0] == 1
    session = InferenceSession(proto.SerializeToString(), providers=CPU, mode="packed")
    wanted = plain_run(weight, proto, x_of(*x), **settings)
    np.testing.assert_array_equal(session.run(None, {"x": x_of(*x)})[0], wanted)


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("chain", ["zeros", "codebook"])
def test_function_bodies_compute_the_same(chain: str, opset: int) -> None:
    proto, weight = conv_model(5, chain, strides=[2, 2])
    _, made = packed(proto)
    made.opset_import[0].version = opset
    made.functions.extend(function_bodies({made.graph.node[0].op_type}, opset))
    stock = onnxruntime.InferenceSession(made.SerializeToString(), providers=CPU)
    x = x_of(1, 5, 8, 8)
    wanted = plain_run(weight, proto, x, strides=[2, 2])
    np.testing.assert_allclose(stock.run(None, {"x": x})[0], wanted, rtol=1e-5, atol=1e-5)


def test_convolutions_that_stay() -> None:
    proto, _ = conv_model(4, "zeros")
    assert packed(proto, frozenset())[0] == 0  # of a type that the provider does not convolve
    dilated, _ = conv_model(4, "zeros", dilations=[2, 2], auto_pad="SAME_UPPER")
    assert packed(dilated)[0] == 0
    read_twice, _ = conv_model(4, "zeros")
    read_twice.graph.output.append(onnx.ValueInfoProto(name="w"))
    assert packed(read_twice)[0] == 0
    by_channel, _ = conv_model(4, "one scale", (5, 5, 3, 3))
    scale = next(t for t in by_channel.graph.initializer if t.name == "scale")
    scale.CopyFrom(numpy_helper.from_array(np.ones(5, np.float32), "scale"))
    count, made = packed(by_channel)
    assert count == 0
    assert made.graph.node[0].op_type == "DecodeDequantize"


def test_what_does_not_fit_is_refused() -> None:
    _, made = packed(conv_model(4, "zeros")[0])
    for name, value, reason in (
        ("w_packed", np.zeros(8, np.uint32), "8 words of packed weights, expected"),
        ("w_scales", np.ones((2, 21), np.float32), "scales must be"),
        ("w_zeros", np.ones((1, 20), np.float32), "zeros and scales differ"),
    ):
        wrong = onnx.ModelProto()
        wrong.CopyFrom(made)
        tensor = next(t for t in wrong.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(value, name))
        options = onnxruntime.SessionOptions()
        runtime.register(options)
        session = onnxruntime.InferenceSession(wrong.SerializeToString(), options, CPU)
        with pytest.raises(Exception, match=reason):
            session.run(None, {"x": x_of(1, 5, 4, 4)})


def test_nodes_of_one_session_share_memory_on_a_device() -> None:
    """Also those that `graph_pack` has made, for which a weight is unpacked ahead."""
    _, made = packed(conv_model(4, "zeros")[0])
    assert fuse_products(made, CUDA_TYPES, session=9, ahead=True) == 0
    given = {a.name: a.i for a in made.graph.node[0].attribute if a.name in ("session", "place")}
    assert given == {"session": 9, "place": 0}
