# SPDX-License-Identifier: Apache-2.0
"""Zeroth-order entropy of integer symbols, the estimate of size that the schemes report."""

from __future__ import annotations

import numpy as np

_CHUNK = 1 << 20


def entropy_bits(symbols: np.ndarray) -> float:
    """Bits that an ideal coder with one static table spends on all of ``symbols``.

    Args:
        symbols: Integers of any shape, int8, uint8 or int16.

    Returns:
        The number of bits (not per symbol); 0 for an empty array.
    """
    if symbols.size == 0:
        return 0.0
    counts = symbol_counts(symbols)[1]
    used = counts[counts > 0].astype(np.float64)
    return float(symbols.size * np.log2(symbols.size) - np.sum(used * np.log2(used)))


def symbol_counts(symbols: np.ndarray) -> tuple[int, np.ndarray]:
    """The lowest symbol, and how often it and each one above it occur, int64 [span]; in little
    memory beside ``symbols``, of which there is at least one."""
    flat = symbols.reshape(-1)
    lowest = int(flat.min())
    span = int(flat.max()) - lowest + 1
    counts = np.zeros(span, np.int64)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.int32) - lowest
        counts += np.bincount(part, minlength=span)
    return lowest, counts
