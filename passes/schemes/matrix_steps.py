# SPDX-License-Identifier: Apache-2.0
"""Integers that a full matrix turns into weights: what an affine decoder with more than one step
makes of the taps of a kernel (Oktay et al. 2020, "Scalable model compression by entropy penalized
reparameterization", section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import Parameters
from passes.schemes.entropy import entropy_bits
from passes.schemes.transform_fold import Folding

_BITS = 24  # of an entry: what float32 holds
_MOST = 2**14  # elements that one matrix mixes: sums of products of 15 and 24 bits stay below 2^53


@dataclass(frozen=True, eq=False)
class MatrixParameters(Parameters):
    """weight = integers x matrix, F of them at a time.

    Attributes:
        symbols: int8 or int16 [A, B, F].
        matrix: float32 [F, F]; all entries are multiples of one power of two below 2^24 of it
            (`on_grid`), so that float64 products add up exactly, in any order.
        folding: From [A, B, F] to the weight.
        dtype: The weight's own type.
    """

    symbols: np.ndarray
    matrix: np.ndarray
    folding: Folding
    dtype: np.dtype

    name: ClassVar[str] = "matrix"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.folding.shape

    def decode(self) -> np.ndarray:
        """Exact in float64, then rounded to float32 and to the weight's type."""
        values = self.symbols.astype(np.float64) @ self.matrix.astype(np.float64)
        return self.folding.unfold(values.astype(np.float32)).astype(self.dtype, copy=False)

    def bits(self) -> float:
        """The symbols' entropy and 32 for each entry of the matrix."""
        return entropy_bits(self.symbols) + 32.0 * self.matrix.size


def on_grid(matrix: np.ndarray) -> np.ndarray:
    """float32 ``matrix`` [F, F] rounded to multiples of one power of two, 24 bits of its largest
    entry; SchemeError for more than 2^14 rows, NaN or infinity."""
    if matrix.shape[0] > _MOST:
        raise SchemeError(f"matrix: {matrix.shape[0]} rows, at most {_MOST}")
    largest = float(np.abs(matrix).max())
    if not np.isfinite(largest):
        raise SchemeError("matrix: NaN or infinity")
    exponent = max(frexp(largest)[1] - _BITS, -140)
    whole = np.rint(np.ldexp(matrix.astype(np.float64), -exponent))
    return np.ldexp(whole, exponent).astype(np.float32)
