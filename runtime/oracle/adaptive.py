# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md section 3: the adaptive coder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import require
from runtime.oracle.fixed import unpack
from runtime.oracle.frame import ADAPTIVE, WordCursor, Words, open_blob

MAX_SYMBOLS = 2**20
MAX_TOTAL = 2**26
EIGHTHS = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)


@dataclass
class Header:
    """The fields of 3.1 under the names of their columns."""

    n: int
    tokens: int
    centre: int
    slope: int
    peak: int
    gain: int
    first: int
    curvature: int = 0
    reach: int = 0
    low_bits: int = 0
    classes: int = 1
    signed: bool = False
    weights: tuple[int, int, int] = (0, 0, 0)
    t1: int = 1
    t2: int = 1
    distance: int = 1


def bits(word: int, low: int, count: int) -> int:
    return (word >> low) & ((1 << count) - 1)


def read_header(cursor: WordCursor) -> Header:
    """3.1. Raises TK_ERR_TRUNCATED, TK_ERR_HEADER."""
    n = cursor.word("number of symbols")
    tokens = cursor.word("tokens")
    prior = cursor.word("prior")
    centre = bits(tokens, 8, 8)
    h = Header(
        n=n,
        tokens=bits(tokens, 0, 8) + 1,
        centre=centre,
        slope=bits(prior, 0, 6),
        peak=bits(prior, 6, 5) - 16,
        gain=bits(prior, 11, 3),
        first=-centre,
    )
    if bits(prior, 14, 1):
        shape = cursor.word("shape")
        h.curvature, h.reach, h.low_bits = bits(shape, 0, 6), bits(shape, 6, 4), bits(shape, 10, 4)
        if bits(shape, 14, 1):
            h.first = (cursor.word("first") ^ 0x8000) - 0x8000
        if bits(shape, 15, 1):
            h.n += cursor.word("number of symbols, high") << 16
    if bits(prior, 15, 1):
        context = cursor.word("context")
        h.signed = bool(bits(context, 0, 1))
        h.classes = 5 if h.signed else 3
        codes = (bits(context, low, 3) for low in (1, 4, 7))
        alpha, beta, gamma = (2**code // 2 for code in codes)
        h.weights = (alpha, beta, gamma)
        h.t1 = bits(context, 12, 2) + 1
        h.t2 = h.t1 + bits(context, 14, 2)
        if bits(context, 11, 1):
            thresholds = cursor.word("thresholds")
            h.t1, h.t2 = bits(thresholds, 0, 8), bits(thresholds, 8, 8)
        if bits(context, 10, 1):
            h.distance = cursor.word("distance")
    check_header(h)
    return h


def check_header(h: Header) -> None:
    def check(condition: bool, field: str, found: object) -> None:
        require(condition, "TK_ERR_HEADER", f"{field} is out of its range: {found}")

    unit = 2**h.low_bits
    check(1 <= h.n <= MAX_SYMBOLS, "number of symbols", h.n)
    check(h.centre < h.tokens, "centre", h.centre)
    check(h.low_bits <= 8, "raw low bits", h.low_bits)
    check(h.first * unit >= -(2**15), "first", h.first)
    check((h.first + h.tokens) * unit <= 2**15, "last", h.first + h.tokens - 1)
    check(1 <= h.t1 <= h.t2, "thresholds", (h.t1, h.t2))
    check(h.distance >= 1, "distance", h.distance)
    alpha, beta, gamma = h.weights
    prior = (4096 + h.tokens) * (h.classes**2 + h.classes * (alpha + beta) + gamma)
    seen = h.n * (h.reach + 1) ** 2 * 4**h.gain * (1 + alpha + beta + gamma)
    check(prior + seen <= MAX_TOTAL, "sum of counts", prior + seen)


def prior_counts(h: Header) -> npt.NDArray[np.int64]:
    """3.2: P, int64 [tokens]."""
    masses = []
    for token in range(h.tokens):
        j = abs(token - h.centre) - 1
        if j < 0:
            t = 4 * max(h.peak, 0)
        else:
            t = 4 * max(-h.peak, 0) + (64 * h.slope**2 * j + h.curvature**2 * j**2) // 4096
        u = 127 - min(t, 127)
        masses.append(EIGHTHS[u % 8] * 2 ** (u // 8))
    return np.array([1 + 4096 * mass // sum(masses) for mass in masses], np.int64)


def class_of(h: Header, token: int) -> int:
    """3.3."""
    if h.classes == 1:
        return 0
    offset = token - h.centre
    step = int(abs(offset) >= h.t1) + int(abs(offset) >= h.t2)
    if not h.signed:
        return step
    return 2 - step if offset < 0 else 2 + step


def decode_tokens(h: Header, code: list[int]) -> list[int]:
    """3.3 and 3.4. Raises TK_ERR_STREAM."""
    counts = np.tile(prior_counts(h), (h.classes, h.classes, 1))
    alpha, beta, gamma = h.weights
    ramp = np.arange(h.tokens)
    tokens: list[int] = []
    size, value, at = 1, 0, 0
    for i in range(h.n):
        y = class_of(h, tokens[i - 1] if i >= 1 else h.centre)
        z = class_of(h, tokens[i - h.distance] if i >= h.distance else h.centre)
        f = counts.sum(axis=(0, 1)) + alpha * counts[y].sum(axis=0)
        f += beta * counts[:, z].sum(axis=0) + gamma * counts[y, z]
        if size < 2**31:
            high, low = (code[j] if j < len(code) else 0 for j in (at, at + 1))
            size, value, at = size * 2**32, value * 2**32 + high * 2**16 + low, at + 2
        below = np.concatenate(([0], np.cumsum(f)))
        r = size // int(below[-1])
        s = int(np.searchsorted(below, value // r, side="right")) - 1
        require(s < h.tokens, "TK_ERR_STREAM", f"symbol {i}: the code lies outside its range")
        value, size = value - r * int(below[s]), r * int(f[s])
        counts[y, z] += np.maximum(h.reach + 1 - abs(ramp - s), 0) * 4**h.gain
        tokens.append(s)
    unread = len(code) - at
    require(unread <= 0, "TK_ERR_STREAM", f"{unread} code words are left over")
    return tokens


def decode_adaptive(words: Words) -> npt.NDArray[np.int16]:
    """Decode an adaptive blob.

    Args:
        words: uint16 [w].

    Returns:
        The symbols, int16 [n].

    Raises:
        FormatError: the blob breaks a rule of sections 1 and 3.
    """
    cursor = open_blob(words, ADAPTIVE)
    h = read_header(cursor)
    raw = cursor.take((h.n * h.low_bits + 15) // 16, "raw low bits")
    code = [int(word) for word in cursor.words[cursor.at :]]
    require(not code or code[-1] != 0, "TK_ERR_STREAM", "the last code word is zero")
    tokens = np.array(decode_tokens(h, code), np.int64)
    symbols: npt.NDArray[np.int64] = (h.first + tokens) * 2**h.low_bits
    symbols += unpack(raw, h.n, h.low_bits)
    return symbols.astype(np.int16)
