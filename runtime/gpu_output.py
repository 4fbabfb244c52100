# SPDX-License-Identifier: Apache-2.0
"""What a GPU makes of the symbols that it decodes, and the same program run on the host.

`emulate_decode` runs the device's program lane by lane, so that machines without a GPU test it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from runtime import c_structures, library
from runtime.errors import CodecError, Status
from runtime.wide import WideReader

Array = npt.NDArray[Any]
Layout = Literal["auto", "direct", "paired", "buckets", "global"]

LAYOUTS: dict[Layout, int] = {"auto": -1, "direct": 0, "paired": 1, "buckets": 2, "global": 3}
_FLOATS = {"float32": 1, "float16": 10, "bfloat16": 16}
_INTEGERS = {"int8": 3, "int16": 5, "int32": 6}
_LOOKUPS = {2: 32, 4: 33}


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """What becomes of a tensor's symbols.

    Attributes:
        dtype: of the values: "symbols", "float32", "float16", "bfloat16", or "lookup".
        shape: of the weight; its product is how many values are written.
        axis: along which the scales run, or with `block_size` the blocks.
        block_size: values along the axis that share a scale; 0 for one scale for each index.
        offset: of the codebook's index: symbol + offset.
    """

    dtype: str
    shape: tuple[int, ...]
    axis: int = 1
    block_size: int = 0
    offset: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def bits_of(array: Array) -> Array:
    """The array in a type that NumPy has: bfloat16 as its bits."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def describe_output(
    spec: OutputSpec,
    *,
    scales: tuple[int, str, Sequence[int]] | None = None,
    zero_points: tuple[int, str] | None = None,
    codebook: tuple[int, int, int] | None = None,
) -> c_structures.Output:
    """Fill the library's description of an output.

    Args:
        spec: the output.
        scales: address, name of the type and shape.
        zero_points: address and name of the type.
        codebook: address, bytes of an entry, number of entries.

    Raises:
        CodecError: types or shapes do not fit each other.
    """
    out = c_structures.Output(num_values=spec.size, offset=spec.offset, inner=1)
    if spec.dtype == "symbols":
        return out
    if spec.dtype == "lookup":
        if codebook is None or codebook[1] not in _LOOKUPS:
            raise CodecError("a lookup needs a codebook of 2 or 4 bytes", Status.ARGUMENT)
        out.codebook, size, out.num_entries = codebook
        out.kind = _LOOKUPS[size]
        return out
    if spec.dtype not in _FLOATS or scales is None or scales[1] not in _FLOATS:
        raise CodecError(f"cannot dequantise to {spec.dtype}", Status.ARGUMENT)
    out.kind = _FLOATS[spec.dtype]
    out.scales, out.scale_type, shape = scales[0], _FLOATS[scales[1]], tuple(scales[2])
    if zero_points is not None:
        if zero_points[1] not in _INTEGERS:
            raise CodecError(f"zero points are {zero_points[1]}", Status.ARGUMENT)
        out.zero_points, out.zero_type = zero_points[0], _INTEGERS[zero_points[1]]
    out.num_scales = math.prod(shape)
    if spec.block_size == 0 and out.num_scales == 1:
        return out
    axis = spec.axis % len(spec.shape) if spec.shape else 0
    length = spec.shape[axis]
    out.inner = math.prod(spec.shape[axis + 1 :])
    wanted: tuple[int, ...] = (length,)
    if spec.block_size:
        out.length, out.block = length, spec.block_size
        blocks = -(-length // spec.block_size)
        wanted = (*spec.shape[:axis], blocks, *spec.shape[axis + 1 :])
    if shape != wanted:
        raise CodecError(f"scales are {list(shape)}, expected {list(wanted)}", Status.ARGUMENT)
    return out


def plan(
    reader: WideReader,
    tensor: int = -1,
    *,
    layout: Layout = "auto",
    multiprocessors: int = 132,
    shared_bytes: int = 232448,
) -> c_structures.PlanInfo:
    """The geometry of the launch that decodes a tensor on a device; -1: the blob's first launch.

    Args:
        reader: an open blob.
        tensor: its number.
        layout: how the tables lie.
        multiprocessors: of the device.
        shared_bytes: shared memory that one thread block may have.
    """
    info = c_structures.PlanInfo()
    status = library.load().tk_plan_describe(
        reader.handle, tensor, LAYOUTS[layout], multiprocessors, shared_bytes, ctypes.byref(info)
    )
    library.check(status, f"planning tensor {tensor}")
    return info


def emulate_decode(
    reader: WideReader,
    tensor: int,
    spec: OutputSpec,
    *,
    scales: Array | None = None,
    zero_points: Array | None = None,
    codebook: Array | None = None,
    layout: Layout = "auto",
    out: Array | None = None,
) -> Array:
    """Decode a tensor as a GPU would, on the host.

    Args:
        reader: an open blob.
        tensor: its number.
        spec: what to write.
        scales: as in DequantizeLinear, float32, float16 or bfloat16.
        zero_points: of the scales' shape, int8, int16 or int32.
        codebook: [entries] of 2 or 4 bytes.
        layout: how the tables lie.
        out: where to write: [size] of the values' type; None for a new array.

    Returns:
        The values, `spec.shape`; those of a lookup have the codebook's type, bfloat16 is uint16.

    Raises:
        CodecError: the blob does not decode, or the arguments contradict each other.
    """
    held = [np.ascontiguousarray(a) for a in (scales, zero_points, codebook) if a is not None]
    arrays = iter(held)
    given: dict[str, Any] = {}
    if scales is not None:
        array = next(arrays)
        given["scales"] = array.ctypes.data, array.dtype.name, scales.shape
    if zero_points is not None:
        array = next(arrays)
        given["zero_points"] = array.ctypes.data, array.dtype.name
    if codebook is not None:
        array = next(arrays)
        given["codebook"] = array.ctypes.data, array.itemsize, array.size
    output = describe_output(spec, **given)
    if out is None:
        out = np.empty(spec.size, values_dtype(spec, reader, codebook))
    status = library.load().tk_emulate_decode(
        reader.handle, tensor, LAYOUTS[layout], ctypes.byref(output), out.ctypes.data, out.nbytes
    )
    library.check(status, f"decoding tensor {tensor}")
    return out.reshape(spec.shape)


def values_dtype(spec: OutputSpec, reader: WideReader, codebook: Array | None) -> np.dtype[Any]:
    """The type of an output's values."""
    if spec.dtype == "symbols":
        return reader.info.dtype
    if spec.dtype == "lookup":
        return bits_of(codebook).dtype if codebook is not None else np.dtype(np.float32)
    return np.dtype(np.uint16 if spec.dtype == "bfloat16" else spec.dtype)


def emulate_decode_all(reader: WideReader, *, layout: Layout = "auto") -> Array:
    """Decode the matrix of all symbols as a GPU would: int8 or int16 [num_lanes, num_steps]."""
    out = np.empty((reader.info.num_lanes, reader.info.num_steps), reader.info.dtype)
    output = c_structures.Output(inner=1)
    status = library.load().tk_emulate_decode(
        reader.handle, -1, LAYOUTS[layout], ctypes.byref(output), out.ctypes.data, out.nbytes
    )
    library.check(status, "decoding the blob")
    return out
