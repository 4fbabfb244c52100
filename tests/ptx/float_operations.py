# SPDX-License-Identifier: Apache-2.0
"""What instructions on floating-point numbers compute, on arrays, rounded once as PTX says."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def round_to_odd(total: Array, error: Array) -> Array:
    """A float64 sum and its error as one number whose last bit is set where bits were lost.

    Rounded once more to a format of at most 51 bits it is what the exact sum is (Boldo and
    Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Transactions on Computers 57,
    2008).
    """
    bits = np.ascontiguousarray(total).view(np.int64)
    even = (bits & 1) == 0
    move = (error != 0) & even & np.isfinite(total)
    away = (error > 0) == (total > 0)
    step = np.where(away, 1, -1)
    return np.where(move, bits + step, bits).view(np.float64)


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32, rounded once."""
    product = a.astype(np.float64) * b.astype(np.float64)  # exact: 48 bits
    other = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = product + other
    part = total - product
    error = (product - (total - part)) + (other - part)
    return round_to_odd(total, np.where(np.isfinite(error), error, 0)).astype(np.float32)


def halves(a: Any) -> Array:
    """The two float16 numbers of each 32-bit word, [..., 2]."""
    return np.ascontiguousarray(np.atleast_1d(a)).view(np.float16).reshape(-1, 2)


def words(pairs: Array) -> Array:
    """Of pairs of float16 numbers."""
    return np.ascontiguousarray(pairs.astype(np.float16)).view(np.uint32).reshape(-1)


def float_of_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def bfloat16_of_float(values: Array) -> Array:
    """uint16, rounded to nearest, ties to even; any NaN becomes 0x7fff."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    return np.where(np.isnan(values), 0x7FFF, rounded).astype(np.uint16)


def float16_of_float(values: Array) -> Array:
    """float16, rounded to nearest, ties to even; any NaN becomes 0x7fff."""
    canonical = np.uint16(0x7FFF).view(np.float16)
    return np.where(np.isnan(values), canonical, values.astype(np.float16))


def to_integer(values: Array, dtype: Any, rounding: str) -> Array:
    """Towards zero (rzi), to nearest even (rni), down (rmi) or up (rpi); limits where they are
    passed, 0 for NaN."""
    rounded = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}[rounding](
        values.astype(np.float64)
    )
    limits = np.iinfo(dtype)
    top = float(limits.max)
    inside = np.where(np.isnan(rounded) | (rounded >= top) | (rounded <= limits.min), 0, rounded)
    result = inside.astype(dtype)
    result = np.where(rounded >= top, limits.max, result)
    return np.where(rounded <= limits.min, limits.min, result).astype(dtype)
