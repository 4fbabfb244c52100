# SPDX-License-Identifier: Apache-2.0
"""Decode chains of every form that the toolkit writes, from the symbols to the weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

import runtime
from tests.decode_models import Array, model, node, std, symbols, take

_RNG = np.random.default_rng(3)
SHAPE = (6, 8, 5)


def scales(*shape: int, dtype: Any = np.float32) -> Array:
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
    "scale of a tensor": lambda d: _dequantize(scales()),
    "scale of one element": lambda d: _dequantize(scales(1)),
    "scales along axis 0": lambda d: _dequantize(scales(6), axis=0),
    "scales along axis 1": lambda d: _dequantize(scales(8)),
    "scales along the last axis": lambda d: _dequantize(scales(5), axis=-1),
    "zero points": lambda d: _dequantize(scales(8), _zeros(8, dtype=d)),
    "half precision": lambda d: _dequantize(scales(6, dtype=np.float16), axis=0),
    "blocks of the last axis": lambda d: _dequantize(scales(6, 8, 1), axis=2, block_size=5),
    "blocks with a rest": lambda d: _dequantize(
        scales(6, 3, 5), _zeros(6, 3, 5, dtype=d), axis=1, block_size=3
    ),
    "multiplied": lambda d: _multiplied(scales()),
    "multiplied along an axis": lambda d: _multiplied(scales(8, 1)),
    "multiplied along two axes": lambda d: _multiplied(scales(6, 8, 1)),
    "multiplied behind zero points": lambda d: _multiplied(
        scales(8, 1), zero=_zeros(8, 1).astype(np.float32)
    ),
    "codebook": lambda d: _looked_up(np.float32),
    "codebook of half precision": lambda d: _looked_up(np.float16),
    "transposed and reshaped": lambda d: _then(
        _multiplied(scales()),
        std("Reshape", ["w", "shape"], ["r"]),
        std("Transpose", ["r"], ["t"], perm=[1, 0]),
        shape=np.array([16, 15]),
    ),
    "cast to half": lambda d: _then(
        _dequantize(scales(8)), std("Cast", ["w"], ["h"], to=TensorProto.FLOAT16)
    ),
    "cast to bfloat16": lambda d: _then(
        _dequantize(scales(8)), std("Cast", ["w"], ["h"], to=TensorProto.BFLOAT16)
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


def source_nodes(dtype: Any, source: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Make "q", symbols of `SHAPE`: a "tensor" of its blob, or a "range" of one."""
    values = symbols(SHAPE, 4, 20.0 if dtype == np.int8 else 90.0, dtype)
    other = symbols((1, 3, 9), 5, 4.0, dtype)
    nodes = [node("DecodeWide" if dtype == np.int8 else "DecodeWide16", ["blob"], ["s"])]
    if source == "tensor":
        blob = runtime.encode_wide([other, values])
        nodes.append(take(blob, 1, "s", "q", list(SHAPE)))
    else:
        stream = np.concatenate([other.reshape(-1), values.reshape(-1)])[None, None]
        blob = runtime.encode_wide([stream])
        nodes.append(take(blob, 0, "s", "stream", [stream.size]))
        nodes.append(node("TakeRange", ["stream"], ["q"], first=other.size, shape=list(SHAPE)))
    return nodes, {"blob": blob}


def with_reader(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], weight: str = ""
) -> onnx.ModelProto:
    """A model in which a node that runs each time reads the last value."""
    reader = std("Expand", [weight or nodes[-1].output[0], "size"], ["y"])
    inputs = [("size", TensorProto.INT64, ["rank"])]
    return model([*nodes, reader], constants, ["y"], inputs)
