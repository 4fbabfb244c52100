# SPDX-License-Identifier: Apache-2.0
"""Which coefficients stay: the largest ones, by number, by energy or by threshold.

Of an orthonormal transform the largest coefficients are the best approximation with that many terms
(Mallat 2009, section 9.2).
"""

from __future__ import annotations

import numpy as np


def kept_by_number(magnitudes: np.ndarray, number: int) -> np.ndarray:
    """bool [F …]: the ``number`` largest of all; of equals the first ones."""
    flat = magnitudes.reshape(-1)
    mask = np.zeros(flat.size, bool)
    number = min(number, flat.size)
    if number:
        least = np.partition(flat, flat.size - number)[flat.size - number]
        mask = flat > least
        equal = np.flatnonzero(flat == least)
        mask[equal[: number - int(mask.sum())]] = True
    return mask.reshape(magnitudes.shape)


def kept_by_energy(magnitudes: np.ndarray, energy: float) -> np.ndarray:
    """bool [F …]: as few of the largest as hold the share ``energy``, 0 to 1, of the sum of
    squares."""
    squares = np.sort(np.square(magnitudes.reshape(-1), dtype=np.float64))[::-1]
    sums = np.cumsum(squares)
    number = int(np.searchsorted(sums, energy * sums[-1])) + 1 if energy * sums[-1] > 0 else 0
    return kept_by_number(magnitudes, min(number, int(np.count_nonzero(magnitudes))))


def kept_by_threshold(magnitudes: np.ndarray, threshold: float) -> np.ndarray:
    """bool [F …]: those of at least ``threshold``."""
    return np.asarray(magnitudes >= threshold)
