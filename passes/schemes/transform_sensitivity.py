# SPDX-License-Identifier: Apache-2.0
"""How an error of a coefficient appears in the output of a layer.

What a convolution is given has an autocorrelation r along the kernel; an error e of the kernel
makes an output error of power e R e^T with R the Toeplitz matrix of r, so the error of a
coefficient counts as its basis vector does (noise shaping: Jayant and Noll 1984, section 7.2).
"""

from __future__ import annotations

import numpy as np

from passes.schemes.transform_kinds import synthesis


def toeplitz(autocorrelation: np.ndarray) -> np.ndarray:
    """The symmetric matrix [F, F] of an autocorrelation for lags 0 … F - 1."""
    lag = np.arange(autocorrelation.size)
    return np.asarray(autocorrelation[np.abs(lag[:, None] - lag[None, :])])


def frequency_sensitivity(
    kind: str, size: int, levels: int | None, gram: np.ndarray | None
) -> np.ndarray:
    """How much of a squared error of each coefficient appears in the output, float64 [F]: s G s^T
    of each basis vector s, at least a millionth of the largest; 1 without ``gram``."""
    if gram is None:
        return np.ones(size)
    matrix = synthesis(kind, size, levels)
    powers = np.einsum("ft,tu,fu->f", matrix, gram, matrix)
    floor = 1e-6 * max(float(powers.max()), 1e-30)
    return np.asarray(np.maximum(powers, floor))
