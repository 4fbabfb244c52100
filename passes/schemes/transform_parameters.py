# SPDX-License-Identifier: Apache-2.0
"""What a fit in the transform domain holds, and the inverse transform (see ``transform``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.schemes.base import Parameters
from passes.schemes.entropy import entropy_bits
from passes.schemes.transform_basis import stages_of, synthesise
from passes.schemes.transform_fold import Folding

_CHUNK = 1 << 20  # coefficients that are undone at once


@dataclass(frozen=True, eq=False)
class TransformParameters(Parameters):
    """A weight in the transform domain.

    Attributes:
        inner: The coefficients in units of their steps: float32 [A, B, F], F counts frequencies.
        kind: The transform.
        levels: Scales of a wavelet.
        folding: Which elements it mixes.
        steps: float32 [F], what the coefficients of each frequency are multiplied by, 0 for a
            dropped frequency; None for 1.
        exponent: Coefficients are rounded to multiples of 2^exponent before the inverse transform.
        mask: int8 of the weight's shape, 0 where it is pruned, 1 elsewhere; None without pruning.
        dtype: The weight's own type.
    """

    inner: Parameters
    kind: str
    levels: int | None
    folding: Folding
    steps: np.ndarray | None
    exponent: int
    mask: np.ndarray | None
    dtype: np.dtype

    name: ClassVar[str] = "transform"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.folding.shape

    @property
    def factors(self) -> np.ndarray:
        """float32 [F] or []: what turns the inner coefficients to multiples of 2^exponent."""
        steps = np.ones((), np.float32) if self.steps is None else self.steps
        return np.asarray(np.ldexp(steps, -self.exponent))

    def coefficients(self) -> np.ndarray:
        """The coefficients that the inverse transform gets, float64 [A, B, F]."""
        return np.asarray(np.ldexp(self._whole(self.inner.decode()), self.exponent))

    def decode(self) -> np.ndarray:
        """Computed in integers (``transform_basis``), so the same bits come out of any library."""
        stages = stages_of(self.kind, self.folding.sizes, self.levels)
        values = self.inner.decode().reshape(-1, self.folding.folded_shape[2])
        scale = 2.0 ** (self.exponent - (stages[-1].shift if stages else 0))
        result = np.empty(values.shape, np.float32)
        rows = max(_CHUNK // values.shape[1], 1)
        for start in range(0, values.shape[0], rows):
            whole = self._whole(values[start : start + rows])
            result[start : start + rows] = synthesise(whole, stages) * scale
        weight = self.folding.unfold(result)
        if self.mask is not None:
            weight = weight * self.mask.astype(np.float32)
        return weight.astype(self.dtype, copy=False)

    def bits(self) -> float:
        """The inner scheme's, 32 per step, and the mask's entropy."""
        side = 64.0 + (0 if self.steps is None else 32 * self.steps.size)
        mask = 0.0 if self.mask is None else entropy_bits(self.mask)
        return self.inner.bits() + side + mask

    def children(self) -> tuple[Parameters, ...]:
        return (self.inner,)

    def _whole(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(np.rint(values * self.factors), np.float64)
