# SPDX-License-Identifier: Apache-2.0
"""Lossless floats: byte planes of float16, bfloat16 and float32 arrays (FORMAT.md 6)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.library import check, load

_UNSIGNED: dict[int, np.dtype[Any]] = {2: np.dtype(np.uint16), 4: np.dtype(np.uint32)}
_FLOATS = ("float16", "bfloat16", "float32")


def split_planes(values: npt.NDArray[Any]) -> list[npt.NDArray[np.uint8]]:
    """Split floats into planes of bytes, the exponent first.

    Each float's bits are turned left by one, so that the sign is the last bit of the last plane.

    Args:
        values: float16, bfloat16 (ml_dtypes) or float32, any shape and any values.

    Returns:
        2 or 4 arrays, uint8, of the shape of `values`.

    Raises:
        TypeError: another type.
    """
    if values.dtype.name not in _FLOATS:
        raise TypeError(f"expected float16, bfloat16 or float32, found {values.dtype.name}")
    size = values.dtype.itemsize
    bits = np.ascontiguousarray(values).reshape(-1).view(_UNSIGNED[size])
    turned = (bits << 1) | (bits >> (8 * size - 1))
    shifts = range(8 * size - 8, -1, -8)
    return [(turned >> shift).astype(np.uint8).reshape(values.shape) for shift in shifts]


def join_planes(
    planes: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike, threads: int = 0
) -> npt.NDArray[Any]:
    """Join what `split_planes` made: the array, bit for bit.

    Args:
        planes: uint8 arrays of one shape, as many as `dtype` has bytes; the first one may also be
            int8, the symbols of `to_symbols`.
        dtype: float16, bfloat16 (ml_dtypes) or float32.
        threads: 0 for one per core.

    Raises:
        TypeError: `dtype` or the type of a plane is another one.
        ValueError: the number of planes or their shapes do not fit.
    """
    wanted = np.dtype(dtype)
    if wanted.name not in _FLOATS:
        raise TypeError(f"expected float16, bfloat16 or float32, found {wanted.name}")
    if len(planes) != wanted.itemsize:
        raise ValueError(f"{wanted.name} has {wanted.itemsize} planes, found {len(planes)}")
    for index, plane in enumerate(planes):
        if plane.dtype != np.uint8 and (index or plane.dtype != np.int8):
            raise TypeError(f"plane {index}: expected uint8, found {plane.dtype}")
        if plane.shape != planes[0].shape:
            raise ValueError(f"plane {index} has shape {plane.shape}, plane 0 {planes[0].shape}")
    first = planes[0] if planes[0].dtype == np.int8 else to_symbols(planes[0])
    parts = [np.ascontiguousarray(plane) for plane in (first, *planes[1:])]
    out = np.empty(planes[0].shape, _UNSIGNED[wanted.itemsize])
    pointers = (ctypes.c_void_p * len(parts))(*(part.ctypes.data for part in parts))
    status = load().tk_join_planes(pointers, wanted.itemsize, out.size, threads, out.ctypes.data)
    check(status, "join_planes")
    return out.view(wanted)


def to_symbols(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """The plane as symbols, byte minus 128: the form in which planes are coded."""
    return np.asarray(plane ^ np.uint8(128)).view(np.int8)
