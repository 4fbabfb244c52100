# SPDX-License-Identifier: Apache-2.0
"""What instructions on integers compute, on arrays; immediates are NumPy's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def abs_(a: Array) -> Array:
    return np.abs(a)


def divide_div(a: Array, b: Any) -> Array:
    """Towards zero; all bits set for a divisor of zero."""
    a, b = np.broadcast_arrays(a, b)
    divisor = np.where(b == 0, 1, b).astype(a.dtype)
    if a.dtype.kind == "u":
        quotient = a // divisor
    else:
        # The least number by -1 wraps around.
        quotient = a // divisor
        quotient += ((a % divisor != 0) & ((a < 0) != (divisor < 0))).astype(a.dtype)
    return np.where(b == 0, ~np.zeros_like(a), quotient).astype(a.dtype)


def divide_rem(a: Array, b: Any) -> Array:
    """Of the sign of the dividend."""
    a, b = np.broadcast_arrays(a, b)
    return np.where(b == 0, a, a - divide_div(a, b) * b).astype(a.dtype)


def popc(a: Array) -> Array:
    """Bits that are set; NumPy before 2 has no function for it."""
    size = a.dtype.itemsize
    bits = np.unpackbits(np.ascontiguousarray(a).view(np.uint8).reshape(-1, size), axis=1)
    return bits.sum(axis=1, dtype=np.uint32)


def clz(a: Array) -> Array:
    size = a.dtype.itemsize
    filled = a.copy()
    step = 1
    while step < 8 * size:
        filled |= filled >> a.dtype.type(step)
        step *= 2
    return np.uint32(8 * size) - popc(filled)


def brev(a: Array) -> Array:
    size = a.dtype.itemsize
    bits = np.unpackbits(np.ascontiguousarray(a).view(np.uint8).reshape(-1, size), axis=1,
                         bitorder="little")  # fmt: skip
    return np.packbits(bits[:, ::-1], axis=1, bitorder="little").reshape(-1).view(a.dtype)


def shift_shl(a: Any, amount: Any) -> Array:
    """Amounts behind the width leave nothing."""
    amount = np.asarray(amount)
    bits = a.dtype.itemsize * 8
    kept = a << (amount & (bits - 1)).astype(a.dtype)
    return np.where(amount < bits, kept, 0).astype(a.dtype)


def shift_shr(a: Any, amount: Any) -> Array:
    """Amounts behind the width leave the sign."""
    amount = np.asarray(amount)
    bits = a.dtype.itemsize * 8
    if a.dtype.kind == "i":
        return a >> np.minimum(amount, bits - 1).astype(a.dtype)
    return np.where(amount < bits, a >> (amount & (bits - 1)).astype(a.dtype), 0).astype(a.dtype)


def bfe(a: Array, position: Any, length: Any) -> Array:
    """`length` bits from `position` on, extended by the field's highest bit where signed; behind
    the highest bit of `a` there are copies of it, or zeros."""
    bits = a.dtype.itemsize * 8
    position, length = (np.asarray(v, np.uint32) & 0xFF for v in (position, length))
    wide = a.astype(np.int64 if a.dtype.kind == "i" else np.uint64)
    place = np.minimum(position, 63).astype(wide.dtype)
    shifted = wide >> place if bits < 64 else shift_shr(wide, position)
    count = np.minimum(length, 64).astype(np.uint64)
    if a.dtype.kind == "u":
        mask = shift_shl(np.full(a.shape, ~np.uint64(0)), count)
        return (shifted & ~mask).astype(a.dtype)
    up = np.minimum(64 - count, 63).astype(np.int64)
    field = (shifted << up) >> up
    return np.where(length == 0, 0, field).astype(a.dtype)


def bfi(a: Any, b: Any, position: Any, length: Any) -> Array:
    """The lowest `length` bits of `a` in the place `position` of `b`."""
    position, length = (np.asarray(v, np.uint64) & np.uint64(0xFF) for v in (position, length))
    ones = shift_shl(np.uint64(1), np.minimum(length, 32)) - np.uint64(1)
    mask = shift_shl(ones, position).astype(np.uint32)
    moved = shift_shl(np.asarray(a).astype(np.uint64), position)
    return ((moved.astype(np.uint32) & mask) | (b & ~mask)).astype(np.uint32)


def prmt(a: Any, b: Any, selector: Any) -> Array:
    """Each nibble of the selector takes one of the eight bytes of b:a, or its sign."""
    count = np.broadcast(a, b, selector).size
    words = np.empty((count, 2), np.uint32)
    words[:, 0], words[:, 1] = a, b
    selectors = np.asarray(selector).reshape(-1, 1)
    nibbles = selectors >> np.array([[0, 4, 8, 12]], np.uint32) & 15
    places = nibbles & 7
    if count > 1 and len(places) == 1:
        found = words.view(np.uint8)[:, places[0]]
    else:
        found = words.view(np.uint8).reshape(-1)[places + np.arange(0, 8 * count, 8)[:, None]]
    if np.count_nonzero(nibbles & 8):
        found = np.where(nibbles & 8, (found >> 7) * np.uint8(0xFF), found)
    return np.ascontiguousarray(found).view(np.uint32).reshape(-1)


def lop3(a: Any, b: Any, c: Any, table: Any) -> Array:
    """Bit by bit the entry a * 4 + b * 2 + c of a table of eight bits."""
    result = np.zeros(np.broadcast(a, b, c).shape, np.uint32)
    for entry in range(8):
        if int(table) >> entry & 1:
            result |= (a if entry & 4 else ~a) & (b if entry & 2 else ~b) & (c if entry & 1 else ~c)
    return result


def shf_l(a: Any, b: Any, amount: Any) -> Array:
    """The upper word of b:a moved up by the amount modulo 32."""
    pair = np.asarray(a).astype(np.uint64) | np.asarray(b).astype(np.uint64) << np.uint64(32)
    moved = pair << (np.asarray(amount) & 31).astype(np.uint64)
    return (moved >> np.uint64(32)).astype(np.uint32)


def shf_r(a: Any, b: Any, amount: Any) -> Array:
    """The lower word of b:a moved down by the amount modulo 32."""
    pair = np.asarray(a).astype(np.uint64) | np.asarray(b).astype(np.uint64) << np.uint64(32)
    return (pair >> (np.asarray(amount) & 31).astype(np.uint64)).astype(np.uint32)
