# SPDX-License-Identifier: Apache-2.0
"""Chains decoded without a session give the very bits that ONNX Runtime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import runtime
from runtime import InferenceSession, graph_rewrite
from runtime.chain_decoder import decode_chains
from runtime.decoder_session import run_decoder
from runtime.planes import split_planes, to_symbols
from runtime.small import encode_small
from tests.decode_models import CPU, Array, model, node, std, symbols, take
from tests.wide_reference_encoder import with_checksum

_RNG = np.random.default_rng(3)
_SHAPE = (6, 8, 5)


def _scales(*shape: int, dtype: Any = np.float32) -> Array:
    return _RNG.uniform(0.01, 0.1, shape).astype(dtype)


def _zeros(*shape: int, dtype: Any = np.int8) -> Array:
    return _RNG.integers(-9, 9, shape).astype(dtype)


def _dequantize(scale: Array, *zero: Array, **attributes: Any) -> Any:
    constants = {"scale": scale, **dict(zip(["zero"], zero, strict=False))}
    return [std("DequantizeLinear", ["q", *constants], ["w"], **attributes)], constants


def _multiplied(scale: Array, **more: Array) -> Any:
    nodes = [std("Cast", ["q"], ["f"], to=TensorProto.FLOAT)]
    if "zero" in more:
        nodes.append(std("Sub", ["f", "zero"], ["f2"]))
    nodes.append(std("Mul", [nodes[-1].output[0], "scale"], ["w"]))
    return nodes, {"scale": scale, **more}


def _looked_up(dtype: Any) -> Any:
    codebook = np.sort(_RNG.normal(size=4096)).astype(dtype)
    nodes = [
        std("Cast", ["q"], ["c"], to=TensorProto.INT32),
        std("Add", ["offset", "c"], ["i"]),
        std("Gather", ["codebook", "i"], ["w"]),
    ]
    return nodes, {"codebook": codebook, "offset": np.array(2048, np.int32)}


def _then(first: Any, *nodes: onnx.NodeProto, **constants: Array) -> Any:
    return [*first[0], *nodes], {**first[1], **constants}


CHAINS = {
    "scale of a tensor": lambda d: _dequantize(_scales()),
    "scale of one element": lambda d: _dequantize(_scales(1)),
    "scales along axis 0": lambda d: _dequantize(_scales(6), axis=0),
    "scales along axis 1": lambda d: _dequantize(_scales(8)),
    "scales along the last axis": lambda d: _dequantize(_scales(5), axis=-1),
    "zero points": lambda d: _dequantize(_scales(8), _zeros(8, dtype=d)),
    "half precision": lambda d: _dequantize(_scales(6, dtype=np.float16), axis=0),
    "blocks of the last axis": lambda d: _dequantize(_scales(6, 8, 1), axis=2, block_size=5),
    "blocks with a rest": lambda d: _dequantize(
        _scales(6, 3, 5), _zeros(6, 3, 5, dtype=d), axis=1, block_size=3
    ),
    "multiplied": lambda d: _multiplied(_scales()),
    "multiplied along an axis": lambda d: _multiplied(_scales(8, 1)),
    "multiplied along two axes": lambda d: _multiplied(_scales(6, 8, 1)),
    "multiplied behind zero points": lambda d: _multiplied(
        _scales(8, 1), zero=_zeros(8, 1).astype(np.float32)
    ),
    "codebook": lambda d: _looked_up(np.float32),
    "codebook of half precision": lambda d: _looked_up(np.float16),
    "transposed and reshaped": lambda d: _then(
        _multiplied(_scales()),
        std("Reshape", ["w", "shape"], ["r"]),
        std("Transpose", ["r"], ["t"], perm=[1, 0]),
        shape=np.array([16, 15]),
    ),
    "cast to half": lambda d: _then(
        _dequantize(_scales(8)), std("Cast", ["w"], ["h"], to=TensorProto.FLOAT16)
    ),
    "cast to bfloat16": lambda d: _then(
        _dequantize(_scales(8)), std("Cast", ["w"], ["h"], to=TensorProto.BFLOAT16)
    ),
    "integers": lambda d: (
        [
            std("Cast", ["q"], ["c"], to=TensorProto.INT32),
            std("Add", ["c", "offset"], ["o"]),
            std("Cast", ["o"], ["w"], to=TensorProto.UINT8),
        ],
        {"offset": np.array(7, np.int32)},
    ),
    "symbols": lambda d: ([], {}),
}


def _check(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> None:
    """Compares the last node's output, decoded in all ways."""
    proto = model(nodes, constants, [nodes[-1].output[0]], opset=21)
    parts = graph_rewrite.cut(graph_rewrite.prepare(proto))
    assert parts is not None and len(parts.weights) == 1
    name = next(iter(parts.weights))
    wanted = run_decoder(parts.decoder(), "", onnxruntime.SessionOptions())[0]
    for threads in (1, 0):
        found = decode_chains(parts.weights, "", threads)
        assert found[name].dtype == wanted.dtype and found[name].shape == wanted.shape
        assert found[name].flags.c_contiguous
        assert found[name].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("source", ["tensor", "range"])
def test_chains(chain: str, dtype: Any, source: str) -> None:
    values = symbols(_SHAPE, 4, 20.0 if dtype == np.int8 else 90.0, dtype)
    other = symbols((1, 3, 9), 5, 4.0, dtype)
    op = "DecodeWide" if dtype == np.int8 else "DecodeWide16"
    nodes = [node(op, ["blob"], ["s"])]
    if source == "tensor":
        blob = runtime.encode_wide([other, values])
        nodes.append(take(blob, 1, "s", "q", list(_SHAPE)))
    else:
        stream = np.concatenate([other.reshape(-1), values.reshape(-1)])[None, None]
        blob = runtime.encode_wide([stream])
        nodes.append(take(blob, 0, "s", "stream", [stream.size]))
        nodes.append(node("TakeRange", ["stream"], ["q"], first=other.size, shape=list(_SHAPE)))
    more, constants = CHAINS[chain](dtype)
    _check([*nodes, *more], {"blob": blob, **constants})


@pytest.mark.parametrize("coder", ["Adaptive", "Huffman", "Fixed"])
def test_small_coders(coder: Any) -> None:
    blob = encode_small(symbols((300,), 12, 20.0, np.int16), coder.lower())
    nodes = [
        node(f"Decode{coder}", ["blob"], ["s"]),
        node("TakeRange", ["s"], ["q"], first=7, shape=[240]),
        std("DequantizeLinear", ["q", "scale"], ["w"]),
    ]
    _check(nodes, {"blob": blob, "scale": _scales()})


@pytest.mark.parametrize("chain", ["scale of a tensor", "multiplied", "codebook"])
def test_a_weight_without_dimensions(chain: str) -> None:
    blob = encode_small(symbols((5,), 12, 20.0, np.int16), "fixed")
    nodes = [
        node("DecodeFixed", ["blob"], ["s"]),
        node("TakeRange", ["s"], ["q"], first=2, shape=[]),
    ]
    more, constants = CHAINS[chain](np.int16)
    _check([*nodes, *more], {"blob": blob, **constants})


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_lossless_planes(dtype: Any) -> None:
    first, *others = split_planes(_RNG.normal(size=(12, 9)).astype(dtype))
    blob = runtime.encode_wide([to_symbols(first)[None]])
    constants = {"blob": blob} | {f"p{i}": plane for i, plane in enumerate(others)}
    single = dtype == np.float32
    nodes = [
        node("DecodeWide", ["blob"], ["s"]),
        take(blob, 0, "s", "q", [12, 9]),
        node(
            "JoinFloat" if single else "JoinHalf",
            ["q", *list(constants)[1:]],
            ["w"],
            to=TensorProto.FLOAT if single else TensorProto.FLOAT16,
        ),
    ]
    _check(nodes, constants)


def test_several_threads_and_many_tensors() -> None:
    tensors = [symbols((1, 300, 700 + 9 * i), i) for i in range(6)]
    blob = runtime.encode_wide(tensors)
    nodes, constants = [node("DecodeWide", ["blob"], ["s"])], {"blob": blob, "scale": _scales()}
    for i, tensor in enumerate(tensors):
        nodes.append(take(blob, i, "s", f"q{i}", list(tensor.shape)))
        nodes.append(std("DequantizeLinear", [f"q{i}", "scale"], [f"w{i}"]))
    outputs = [f"w{i}" for i in range(len(tensors))]
    parts = graph_rewrite.cut(graph_rewrite.prepare(model(nodes, constants, outputs)))
    assert parts is not None
    for threads in (1, 2, 5):
        found = decode_chains(parts.weights, "", threads)
        for (name, (_, output)), tensor in zip(parts.weights.items(), tensors, strict=True):
            assert output in outputs
            wanted = tensor.astype(np.float32) * constants["scale"]
            np.testing.assert_array_equal(found[name], wanted)


def test_other_operators_are_left_to_onnxruntime() -> None:
    blob = runtime.encode_wide([symbols((1, 24, 16), 1), symbols((1, 24, 16), 2)])
    nodes = [
        node("DecodeWide", ["blob"], ["s"]),
        take(blob, 0, "s", "q0", [24, 16]),
        take(blob, 1, "s", "q1", [24, 16]),
        std("DequantizeLinear", ["q0", "scale"], ["w0"]),
        std("DequantizeLinear", ["q1", "scale"], ["d1"]),
        std("Softmax", ["d1"], ["w1"]),
        std("MatMul", ["x", "w0"], ["a"]),
        std("MatMul", ["x", "w1"], ["b"]),
    ]
    constants = {"blob": blob, "scale": _scales()}
    inputs = [("x", TensorProto.FLOAT, ["batch", 24])]
    proto = model(nodes, constants, ["a", "b"], inputs)
    content = proto.SerializeToString()
    parts = graph_rewrite.cut(graph_rewrite.prepare(proto))
    assert parts is not None and list(decode_chains(parts.weights, "", 1)) == ["w0"]
    feeds = {"x": _RNG.normal(size=(3, 24)).astype(np.float32)}
    for mode in ("load", "stream"):
        a, b = InferenceSession(content, providers=CPU, mode=mode).run(None, feeds)  # type: ignore[arg-type]
        reference = InferenceSession(content, providers=CPU).run(None, feeds)
        np.testing.assert_allclose(a, reference[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, reference[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "text"), [("DecodeWide16", "'blob'.*int16"), ("DecodeFixed", "'blob'")]
)
def test_the_wrong_decoder_is_refused(op: str, text: str) -> None:
    blob = runtime.encode_wide([symbols((1, 24, 16), 1)])
    nodes = [node(op, ["blob"], ["s"]), std("Identity", ["s"], ["w"])]
    proto = model(nodes, {"blob": blob}, ["w"])
    with pytest.raises(runtime.ModelError, match=text):
        InferenceSession(proto.SerializeToString(), providers=CPU)


def test_damage_behind_the_checksum_is_refused_when_the_session_is_made() -> None:
    blob = runtime.encode_wide([symbols((1, 24, 160), 1)])
    damaged = blob.copy()
    damaged[-20:] = np.uint16(0xFFFF)
    nodes = [
        node("DecodeWide", ["blob"], ["s"]),
        take(blob, 0, "s", "q", [24, 160]),
        std("DequantizeLinear", ["q", "scale"], ["w"]),
        std("Identity", ["w"], ["y"]),
    ]
    proto = model(nodes, {"blob": with_checksum(damaged), "scale": _scales()}, ["y"])
    with pytest.raises(runtime.ModelError, match="'blob'.*tensor 0.*do not decode"):
        InferenceSession(proto.SerializeToString(), providers=CPU)


def _zero_runs(differences: list[int], size: int, **attributes: Any) -> Any:
    """Float entries 1, 2, … at the running sum of differences, among `size` zeros."""
    values = np.arange(1, len(differences) + 1, dtype=np.float32)
    nodes = [
        node("DecodeFixed", ["blob"], ["s"]),
        std("Cast", ["s"], ["c"], to=TensorProto.INT32),
        std("CumSum", ["c", "axis"], ["places"], **attributes),
        std("Expand", ["zero", "shape"], ["zeros"]),
        std("ScatterElements", ["zeros", "places", "values"], ["w"]),
    ]
    constants = {
        "blob": encode_small(np.array(differences, np.int16), "fixed"),
        "axis": np.array(0, np.int32),
        "zero": np.array(0, np.float32),
        "shape": np.array([size]),
        "values": values,
    }
    return nodes, constants


def test_entries_at_their_places() -> None:
    _check(*_zero_runs([2, 3, 1, 8], 20))


@pytest.mark.parametrize(
    "chain",
    [
        _zero_runs([2, 3, 1], 20, exclusive=1),
        _zero_runs([2, 3, 1], 20, reverse=1),
        _zero_runs([5, -3, 1], 20),
    ],
)
def test_other_forms_of_zero_runs_are_left_to_onnxruntime(chain: Any) -> None:
    nodes, constants = chain
    proto = model(nodes, constants, ["w"])
    parts = graph_rewrite.cut(graph_rewrite.prepare(proto))
    assert parts is not None and decode_chains(parts.weights, "", 1) == {}
    assert run_decoder(parts.decoder(), "", onnxruntime.SessionOptions())[0].size == 20


def test_places_outside_are_refused() -> None:
    nodes, constants = _zero_runs([2, 30], 20)
    proto = model([*nodes, std("Identity", ["w"], ["y"])], constants, ["y"])
    with pytest.raises(runtime.ModelError, match="cannot be decoded"):
        InferenceSession(proto.SerializeToString(), providers=CPU)
