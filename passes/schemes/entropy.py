# SPDX-License-Identifier: Apache-2.0
"""Zeroth-order entropy of integer symbols, the estimate of size that the schemes report."""

from __future__ import annotations

import numpy as np


def entropy_bits(symbols: np.ndarray) -> float:
    """Bits that an ideal coder with one static table spends on all of ``symbols``.

    Args:
        symbols: Integers of any shape, int8, uint8 or int16.

    Returns:
        The number of bits (not per symbol); 0 for an empty array.
    """
    flat = symbols.reshape(-1)
    if flat.size == 0:
        return 0.0
    lowest = int(flat.min())
    span = int(flat.max()) - lowest + 1
    counts = np.zeros(span, np.int64)
    for start in range(0, flat.size, 1 << 20):
        part = flat[start : start + (1 << 20)].astype(np.int32) - lowest
        counts += np.bincount(part, minlength=span)
    used = counts[counts > 0].astype(np.float64)
    return float(flat.size * np.log2(flat.size) - np.sum(used * np.log2(used)))
