# SPDX-License-Identifier: Apache-2.0
"""Function bodies of the small coders and of lossless floats on stock ONNX Runtime, bit for bit."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from passes.function_bodies.decode_adaptive import decode_adaptive
from passes.function_bodies.decode_fixed import decode_fixed
from passes.function_bodies.decode_huffman import decode_huffman
from passes.function_bodies.join_float import join_float, join_half
from runtime.planes import split_planes, to_symbols
from runtime.small import SmallCoder, encode_small
from tests.small_samples import CODERS, fits, streams, with_checksum

INT8, UINT8 = int(TensorProto.INT8), int(TensorProto.UINT8)
OPSETS = (13, 15, 18, 21, 25)
BODIES = {"adaptive": decode_adaptive, "huffman": decode_huffman, "fixed": decode_fixed}
LIMITS = {"adaptive": 7000, "huffman": 3500, "fixed": 1500}


def session(
    body: onnx.FunctionProto,
    opset: int,
    inputs: list[tuple[int, int]],
    result: int,
    **attributes: Any,
) -> onnxruntime.InferenceSession:
    """A model of this one function; inputs: element type and rank."""
    names = [f"i{k}" for k in range(len(inputs))]
    node = helper.make_node(body.name, names, ["o"], domain="toolkit", **attributes)
    value = helper.make_tensor_value_info
    described = zip(names, inputs, strict=True)
    graph = helper.make_graph(
        [node],
        "g",
        [
            value(name, kind, [f"{name}{d}" for d in range(rank)])
            for name, (kind, rank) in described
        ],
        [value("o", result, None)],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("toolkit", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[body], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def decoder(coder: str, opset: int) -> Callable[[npt.NDArray[np.uint16]], npt.NDArray[np.int16]]:
    body = BODIES[coder](opset)
    stock = session(body, opset, [(TensorProto.UINT16, 1)], TensorProto.INT16)
    return lambda words: stock.run(None, {"i0": words})[0]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("coder", CODERS)
def test_small_coders(coder: SmallCoder, opset: int) -> None:
    decode = decoder(coder, opset)
    for name, symbols, row_length in streams():
        if symbols.size > (2000 if opset == OPSETS[0] else 300) or not fits(coder, symbols):
            continue
        words = encode_small(symbols, coder, row_length)
        decoded = decode(words)
        assert decoded.dtype == np.int16
        np.testing.assert_array_equal(decoded, symbols, name)


@pytest.mark.parametrize("coder", CODERS)
def test_body_size(coder: str) -> None:
    assert len(BODIES[coder](13).SerializeToString()) < LIMITS[coder]


@pytest.mark.parametrize("coder", CODERS)
def test_damaged_blobs_do_not_crash(coder: SmallCoder) -> None:
    """Without the library nothing is checked: wrong numbers or an error, but no crash."""
    rng = np.random.default_rng(2)
    decode = decoder(coder, 17)
    words = encode_small(np.rint(rng.laplace(0, 3, 60)).astype(np.int16), coder)
    for index in range(14, words.size * 2):
        damaged = words.copy()
        damaged.view(np.uint8)[index] ^= np.uint8(rng.integers(1, 256))
        with contextlib.suppress(Exception):  # ONNX Runtime's errors share no other base
            decode(with_checksum(damaged))


def join(
    stock: onnxruntime.InferenceSession, values: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    """The bits that the session makes of the values' planes."""
    planes = split_planes(values)
    feeds: dict[str, npt.NDArray[Any]] = {f"i{k}": plane for k, plane in enumerate(planes)}
    feeds["i0"] = to_symbols(planes[0])
    named = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a) for name, a in feeds.items()}
    (joined,) = stock.run_with_ort_values(None, named)
    assert joined.shape() == list(values.shape)
    unsigned = np.uint16 if values.dtype.itemsize == 2 else np.uint32
    memory = ctypes.string_at(joined.data_ptr(), values.nbytes)
    return np.frombuffer(memory, unsigned).reshape(values.shape)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_half(opset: int) -> None:
    bits = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    inputs = [(INT8, 2), (UINT8, 2)]
    for dtype, to in ((np.float16, TensorProto.FLOAT16), (ml_dtypes.bfloat16, 16)):
        values = bits.view(dtype)
        number = ~np.isnan(values.astype(np.float32))
        joined = join(session(join_half(opset), opset, inputs, to, to=to), values)
        np.testing.assert_array_equal(joined[number], bits[number])


@pytest.mark.parametrize("opset", OPSETS)
def test_float32(opset: int) -> None:
    exponents = np.arange(256, dtype=np.uint32) << 23
    mantissas = np.array([0, 1, 2, 0x400000, 0x7FFFFE, 0x7FFFFF], np.uint32)
    signs = np.array([0, 0x80000000], np.uint32)
    grid = exponents[:, None, None] | mantissas[:, None] | signs
    some = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint32)
    bits = np.concatenate([grid.reshape(-1), some])
    inputs = [(INT8, 1), *[(UINT8, 1)] * 3]
    values = bits.view(np.float32)
    joined = join(session(join_float(opset), opset, inputs, TensorProto.FLOAT), values)
    number = ~np.isnan(values)
    np.testing.assert_array_equal(joined[number], bits[number])


def test_scalar_float() -> None:
    inputs = [(INT8, 0), *[(UINT8, 0)] * 3]
    value = np.array(-0.1, np.float32)
    joined = join(session(join_float(13), 13, inputs, TensorProto.FLOAT), value)
    assert joined == value.view(np.uint32)
