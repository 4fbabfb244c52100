# SPDX-License-Identifier: Apache-2.0
"""Rows that are cosines of a frequency of their own: two numbers for each row of a matrix.

weight[k, t] = 2 n_k cos(pi f_k (2t + 1) / (2 out)): with f_k = k and as many columns as rows these
are the rows of a DCT-II (Britanak, Yip and Rao 2007, section 4.2); here n and f are whatever they
were learned to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.lossless import Lossless
from passes.schemes.weight_values import finite_float32

_SHIFT = 22
_MARGIN = 2.0**-28  # far above what sines of two libraries differ by, in units of 2^-shift
_STEPS = 8  # grid points per frequency in a fit


@dataclass(frozen=True, eq=False)
class CosineRowsParameters(Parameters):
    """Amplitudes and frequencies of the rows.

    Attributes:
        amplitudes, frequencies: float32 [rows].
        columns: Of the weight.
        dtype: The weight's own type.
    """

    amplitudes: Parameters
    frequencies: Parameters
    columns: int
    dtype: np.dtype

    name: ClassVar[str] = "cosine_rows"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.amplitudes.shape[0], self.columns)

    @property
    def angle_unit(self) -> float:
        """pi / (2 out)."""
        return float(np.pi / (2 * self.shape[0]))

    def cosines(self) -> np.ndarray:
        """float64 [rows, columns], as the graph computes them."""
        unit = np.arange(1, 2 * self.columns, 2, dtype=np.float64) * self.angle_unit
        frequencies = self.frequencies.decode().astype(np.float64)
        return np.asarray(np.sin(frequencies[:, None] * unit + np.pi / 2))

    def shift(self) -> int:
        """s: cosines are rounded to multiples of 2^-s, where no library can decide otherwise."""
        cosines, shift = self.cosines(), _SHIFT
        while shift > 8:
            scaled = cosines * 2.0**shift
            if not (np.abs(scaled - np.floor(scaled) - 0.5) < _MARGIN).any():
                break
            shift -= 1
        return shift

    def decode(self) -> np.ndarray:
        """Products of integers of 22 bits and floats of 24, exact in float64, rounded once."""
        shift = self.shift()
        whole = np.rint(self.cosines() * 2.0**shift) + 0.0  # integers know no negative zero
        sizes = self.amplitudes.decode().astype(np.float64) * 2.0 ** (1 - shift)
        values = (whole * sizes[:, None]).astype(np.float32)
        return values.astype(self.dtype, copy=False)

    def bits(self) -> float:
        """Those of amplitudes and frequencies."""
        return self.amplitudes.bits() + self.frequencies.bits()

    def children(self) -> tuple[Parameters, ...]:
        return (self.amplitudes, self.frequencies)


@dataclass(frozen=True)
class CosineRows:
    """Fits each row of a matrix by the cosine that takes most of its energy; a start for training
    rather than a good approximation.

    Attributes:
        inner: The scheme of amplitudes and of frequencies.
    """

    inner: Scheme = Lossless()

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> CosineRowsParameters:
        """Takes a float32, float16 or bfloat16 matrix; SchemeError for another rank, an empty one,
        NaN or infinity."""
        if weight.ndim != 2:
            raise SchemeError(f"cosine_rows: expected a matrix, found shape {weight.shape}")
        values = finite_float32(weight)
        amplitudes, frequencies = fitted_rows(values)
        return self.of(amplitudes, frequencies, weight.shape[1], weight.dtype, context)

    def of(
        self,
        amplitudes: np.ndarray,
        frequencies: np.ndarray,
        columns: int,
        dtype: np.dtype,
        context: FitContext | None = None,
    ) -> CosineRowsParameters:
        """Parameters of given float32 [rows] amplitudes and frequencies."""
        context = FitContext() if context is None else FitContext(seed=context.seed)
        fitted = [self.inner.fit(part, context) for part in (amplitudes, frequencies)]
        return CosineRowsParameters(fitted[0], fitted[1], columns, dtype)


def fitted_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude and frequency, float32 [rows] each, of the best cosine of each row of a grid of
    ``8 columns`` frequencies."""
    rows, columns = values.shape
    places = np.arange(1, 2 * columns, 2) * (np.pi / (2 * columns))
    grid = np.arange(columns * _STEPS) / _STEPS
    best = np.zeros(rows)
    amplitudes, frequencies = np.zeros(rows), np.zeros(rows)
    for start in range(0, grid.size, 256):
        basis = np.cos(grid[start : start + 256, None] * places)
        energy = np.square(basis).sum(1)
        products = values.astype(np.float64) @ basis.T
        gains = np.square(products) / energy
        index = gains.argmax(1)
        gain = gains[np.arange(rows), index]
        better = gain > best
        best = np.where(better, gain, best)
        chosen = products[np.arange(rows), index] / energy[index]
        amplitudes = np.where(better, chosen / 2, amplitudes)
        frequencies = np.where(better, grid[start + index] * rows / columns, frequencies)
    return amplitudes.astype(np.float32), frequencies.astype(np.float32)
