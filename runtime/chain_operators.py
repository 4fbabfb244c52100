# SPDX-License-Identifier: Apache-2.0
"""The operators of decode chains on arrays, bit for bit as ONNX Runtime computes them.

An operator takes its inputs and its node, and returns its only output. It raises
`UnknownFormError` for what it does not know, which includes what is wrong: ONNX Runtime then runs
the chain, or says what is wrong with it. It raises `NotReadyError` where it must see an array that
is only promised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from runtime.element_types import DTYPES
from runtime.graph_values import DOMAIN, Node
from runtime.lazy_symbols import Blob, Symbols
from runtime.planes import join_planes
from runtime.promises import Array, Promise

Value = Array | Promise | Symbols | Blob
Inputs = Sequence[Value | None]
Operator = Callable[[Inputs, Node], Value]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float16))
_INDICES = (np.dtype(np.int32), np.dtype(np.int64))
_MAX_SIZE = 2**31 - 1  # elements of a tensor


class UnknownFormError(Exception):
    """An operator, or a form of one, that is not known here."""


def array_of(value: Value | None) -> Array:
    """Return a value as an array."""
    if isinstance(value, Symbols):
        value = value.array()
    if isinstance(value, Promise):
        return value.array()
    if isinstance(value, np.ndarray):
        return value
    raise UnknownFormError("all symbols of a blob at once, or no value")


def _tensor(value: Value | None) -> Array | Symbols:
    return value if isinstance(value, Symbols) else array_of(value)


def _take_tensor(inputs: Inputs, node: Node) -> Value:
    blob, attributes = inputs[0], node.attributes()
    if not isinstance(blob, Blob):
        raise UnknownFormError("symbols of another op")
    reader, shape = blob.reader, tuple(attributes["shape"])
    index = reader.find(attributes["lane"], attributes["lanes"], attributes["steps"])
    if index is None or not 0 < prod(shape) <= prod(reader.tensors[index].shape):
        raise UnknownFormError("not a tensor of the blob")
    return Symbols(blob, index, shape, reader.info.dtype)


def _take_range(inputs: Inputs, node: Node) -> Value:
    stream, attributes = array_of(inputs[0]), node.attributes()
    first, shape = attributes["first"], attributes["shape"]
    count = prod(shape)
    if stream.ndim != 1 or first < 0 or first + count > stream.size:
        raise UnknownFormError("not a range of the stream")
    return stream[first : first + count].reshape(shape)


def _dequantize(inputs: Inputs, node: Node) -> Value:
    value, scale, attributes = _tensor(inputs[0]), array_of(inputs[1]), node.attributes()
    zero = array_of(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else None
    if scale.dtype not in _FLOATS or attributes.get("output_dtype"):
        raise UnknownFormError("type of scale or output")
    if value.dtype not in (np.int8, np.int16) or 0 in value.shape:
        raise UnknownFormError("type or shape of symbols")
    if zero is not None and (zero.shape != scale.shape or zero.dtype != value.dtype):
        raise UnknownFormError("zero points")
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    scales, inner = _spread(scale, value.shape, axis, block)
    scales = scales.astype(np.float32, copy=False)
    zeros = None
    if zero is not None:
        zeros = _spread(zero, value.shape, axis, block)[0].astype(np.int32)
    if isinstance(value, Symbols) and not value.is_shifted:
        return value.dequantize(scales, zeros, inner, scale.dtype)
    symbols = array_of(value).reshape(-1, scales.size, inner)  # each scale meets its values
    if zeros is not None:
        symbols = symbols.astype(np.int32) - zeros[:, None]
    out = symbols.astype(np.float32) * scales[:, None]
    return out.astype(scale.dtype, copy=False).reshape(value.shape)


def _spread(values: Array, shape: Sequence[int], axis: int, block: int) -> tuple[Array, int]:
    """Bring what belongs to an axis into the form in which entry j of the result belongs to the
    flat indices i of the tensor with (i // inner) % entries = j; return it and `inner`."""
    if not block and values.size == 1 and values.ndim <= 1:
        return values.reshape(1), prod(shape)
    if not -len(shape) <= axis < len(shape) or block < 0:
        raise UnknownFormError("axis or block size")
    axis %= len(shape)
    length, inner = shape[axis], prod(shape[axis + 1 :])
    if not block:
        if values.shape != (length,):
            raise UnknownFormError("shape of scales")
        return values, inner
    if values.shape != (*shape[:axis], -(-length // block), *shape[axis + 1 :]):
        raise UnknownFormError("shape of scales")
    if inner == 1 and length % block == 0:
        return values.reshape(-1), block
    return np.repeat(values, block, axis).take(range(length), axis).reshape(-1), 1


def _cast(inputs: Inputs, node: Node) -> Value:
    value, wanted = _tensor(inputs[0]), DTYPES.get(node.attributes()["to"])
    if wanted is None or (isinstance(value, Symbols) and value.is_shifted):
        value = array_of(value)
    if wanted is None or value.dtype not in DTYPES.values():
        raise UnknownFormError("type of Cast")
    if value.dtype.kind == "i" and wanted in (*_INDICES, np.float32):
        return value.cast(wanted) if isinstance(value, Symbols) else value.astype(wanted)
    if value.dtype.kind in "iu" and wanted.kind in "iu":
        return array_of(value).astype(wanted)
    if value.dtype == np.float32 and wanted.kind not in "iu":
        return array_of(value).astype(wanted)
    raise UnknownFormError("types of Cast")


def _mul(inputs: Inputs, _: Node) -> Value:
    value, factor = inputs
    if isinstance(factor, Symbols):
        value, factor = factor, value
    if isinstance(value, Symbols) and isinstance(factor, np.ndarray):
        scales = _along_one_axis(factor, value.shape)
        if scales is not None and value.dtype == factor.dtype == np.float32:
            return value.dequantize(scales[0], None, scales[1], np.float32)
    return _arithmetic(np.multiply, inputs, _FLOATS[0])


def _along_one_axis(factor: Array, shape: Sequence[int]) -> tuple[Array, int] | None:
    """Return factors that differ along one axis only, flat, and how many neighbours share one."""
    axes = [axis for axis, length in enumerate(factor.shape) if length != 1]
    if factor.ndim > len(shape) or len(axes) > 1:
        return None
    if not axes:
        return factor.reshape(1), prod(shape)
    axis = axes[0] - factor.ndim  # from the last, where shapes are aligned
    if factor.shape[axis] != shape[axis]:
        return None
    return factor.reshape(-1), prod(shape[len(shape) + axis + 1 :])


def _sub(inputs: Inputs, _: Node) -> Value:
    return _arithmetic(np.subtract, inputs, _FLOATS[0])


def _add(inputs: Inputs, _: Node) -> Value:
    value, term = inputs
    if isinstance(term, Symbols):
        value, term = term, value
    if isinstance(value, Symbols) and isinstance(term, np.ndarray) and value.dtype in _INDICES:
        if term.dtype == value.dtype and term.size == 1 and term.ndim <= len(value.shape):
            return value.shift(int(term.reshape(())))
        raise UnknownFormError("terms of Add")
    return _arithmetic(np.add, inputs, _FLOATS[0], *_INDICES)


def _arithmetic(
    function: Callable[[Array, Array], Array],
    inputs: Inputs,
    *dtypes: np.dtype[Any],
) -> Array:
    left, right = (array_of(value) for value in inputs)
    if left.dtype != right.dtype or left.dtype not in dtypes:
        raise UnknownFormError("types of arithmetic")
    return np.asarray(function(left, right))  # of no dimensions it would be a scalar


def _gather(inputs: Inputs, node: Node) -> Value:
    codebook, indices = array_of(inputs[0]), _tensor(inputs[1])
    if codebook.ndim != 1 or codebook.dtype not in _FLOATS or node.attributes().get("axis", 0):
        raise UnknownFormError("codebook")
    if indices.dtype not in _INDICES or 0 in (codebook.size, *indices.shape):
        raise UnknownFormError("indices")
    if isinstance(indices, Symbols):
        return indices.look_up(codebook)
    if indices.min() < 0 or indices.max() >= codebook.size:
        raise UnknownFormError("an index outside the codebook")
    return np.asarray(codebook[indices])


def _transpose(inputs: Inputs, node: Node) -> Value:
    array = array_of(inputs[0])
    order = node.attributes().get("perm", range(array.ndim)[::-1])
    if sorted(order) != list(range(array.ndim)):
        raise UnknownFormError("perm")
    return np.ascontiguousarray(array.transpose(order))


def _cumulate(inputs: Inputs, node: Node) -> Value:
    array, axis = array_of(inputs[0]), array_of(inputs[1])
    if array.ndim != 1 or array.dtype not in _INDICES or node.proto.attribute:
        raise UnknownFormError("form of CumSum")
    if axis.size != 1 or int(axis.reshape(())) not in (0, -1):
        raise UnknownFormError("axis")
    return np.cumsum(array, dtype=array.dtype)


def _expand(inputs: Inputs, _: Node) -> Value:
    value, shape = array_of(inputs[0]), array_of(inputs[1]).tolist()
    if value.size != 1 or value.ndim > len(shape) or not 0 < prod(shape) <= _MAX_SIZE:
        raise UnknownFormError("form of Expand")
    return np.full(shape, value.reshape(()), value.dtype)


def _scatter(inputs: Inputs, node: Node) -> Value:
    array, places, values = (array_of(value) for value in inputs)
    if array.ndim != 1 or array.dtype != values.dtype or node.proto.attribute:
        raise UnknownFormError("form of ScatterElements")
    if places.dtype not in _INDICES or places.shape != values.shape or not places.size:
        raise UnknownFormError("indices")
    if places[0] < 0 or places[-1] >= array.size or (places[1:] <= places[:-1]).any():
        raise UnknownFormError("indices that do not ascend inside of the tensor")
    scattered = array.copy()
    scattered[places] = values
    return scattered


def _reshape(inputs: Inputs, _: Node) -> Value:
    array, shape = array_of(inputs[0]), array_of(inputs[1]).tolist()
    if not all(size > 0 for size in shape) or prod(shape) != array.size:
        raise UnknownFormError("shape")
    return array.reshape(shape)


def _slice(inputs: Inputs, _: Node) -> Value:
    array, *bounds = (array_of(value) for value in inputs)
    if len(bounds) != 2 or array.ndim != 1 or any(bound.shape != (1,) for bound in bounds):
        raise UnknownFormError("form of Slice")
    start, end = (int(bound[0]) for bound in bounds)
    if not 0 <= start < end <= array.size:
        raise UnknownFormError("bounds of Slice")
    return array[start:end]


def _identity(inputs: Inputs, _: Node) -> Value:
    return array_of(inputs[0])


def _join(inputs: Inputs, node: Node) -> Value:
    wanted = DTYPES.get(node.attributes()["to"])
    first, *others = (array_of(value) for value in inputs)
    if wanted is None or first.dtype != np.int8 or any(plane.dtype != np.uint8 for plane in others):
        raise UnknownFormError("types of planes")
    try:
        return join_planes([first, *others], wanted)
    except (TypeError, ValueError) as error:
        raise UnknownFormError(str(error)) from error


OPERATORS: dict[tuple[str, str], Operator] = {
    (DOMAIN, "TakeTensor"): _take_tensor,
    (DOMAIN, "TakeRange"): _take_range,
    (DOMAIN, "JoinFloat"): _join,
    (DOMAIN, "JoinHalf"): _join,
    ("", "DequantizeLinear"): _dequantize,
    ("", "Cast"): _cast,
    ("", "Mul"): _mul,
    ("", "Sub"): _sub,
    ("", "Add"): _add,
    ("", "Gather"): _gather,
    ("", "Transpose"): _transpose,
    ("", "Reshape"): _reshape,
    ("", "Slice"): _slice,
    ("", "CumSum"): _cumulate,
    ("", "Expand"): _expand,
    ("", "ScatterElements"): _scatter,
    ("", "Identity"): _identity,
}
"""By domain and type, but for the ops that open a blob (`chain_decoder`)."""
