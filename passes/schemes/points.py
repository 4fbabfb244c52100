# SPDX-License-Identifier: Apache-2.0
"""Values that are given, or powers of two: each weight takes the nearest one.

Given points are what differentiable quantisation learns (Polino, Pascanu, Alistarh 2018, "Model
compression via distillation and quantization", section 4). Powers of two: Zhou et al. 2017,
"Incremental network quantization", section 2.2, here with the best range of exponents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext
from passes.schemes.codebook_parameters import CodebookParameters, assigned
from passes.schemes.scaling import largest_finite, least_positive
from passes.schemes.weight_values import finite_float32, importance_of, mask_of

_MAX_POINTS = 2**16 - 1  # and zero, for what is pruned


@dataclass(frozen=True, eq=False)
class PointsParameters(CodebookParameters):
    """A codebook that was given; entries without any element are left out."""

    name: ClassVar[str] = "points"


@dataclass(frozen=True, eq=False)
class PowerOfTwoParameters(CodebookParameters):
    """A codebook of zero and powers of two of both signs."""

    name: ClassVar[str] = "power_of_two"


@dataclass(frozen=True)
class Points:
    """Each weight becomes the nearest of ``values``: the projection on them, rounded to its type.

    Pruned elements (the context's mask) become 0 in any case.

    Attributes:
        values: 1 to 65535 finite numbers, in any order.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= _MAX_POINTS:
            raise SchemeError(f"points: expected 1 to {_MAX_POINTS}, found {len(self.values)}")
        if not all(math.isfinite(value) for value in self.values):
            raise SchemeError("points: values must be finite")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> PointsParameters:
        """Takes a float32, float16 or bfloat16 array of any shape; SchemeError for an empty one,
        NaN or infinity, and for points beyond its type's range."""
        finite_float32(weight)
        points = np.array(self.values, np.float64)
        if np.abs(points).max() > largest_finite(weight.dtype):
            raise SchemeError(f"points: {weight.dtype.name} cannot hold all of them")
        return assigned(PointsParameters, weight, points, mask_of(weight, context or FitContext()))


@dataclass(frozen=True)
class PowerOfTwo:
    """Zero and +-2^k for 2^(bits - 1) - 1 neighbouring exponents k: those of the least squared
    error, weighted by the context's importance. Idempotent.

    Attributes:
        bits: 2 to 8.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise SchemeError(f"power_of_two: bits must be 2 to 8, not {self.bits}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> PowerOfTwoParameters:
        """Fits a float32, float16 or bfloat16 array of any shape; SchemeError for an empty one,
        NaN or infinity."""
        context = context or FitContext()
        values, mask = finite_float32(weight).astype(np.float64), mask_of(weight, context)
        importance = importance_of(weight, context)
        counted = values != 0 if mask is None else mask & (values != 0)
        powers = _best_powers(
            np.abs(values[counted]),
            np.ones(np.count_nonzero(counted)) if importance is None else importance[counted],
            2 ** (self.bits - 1) - 1,
            weight.dtype,
        )
        return assigned(
            PowerOfTwoParameters, weight, np.concatenate((-powers, [0.0], powers)), mask
        )


def _best_powers(
    values: np.ndarray, weights: np.ndarray, count: int, dtype: np.dtype
) -> np.ndarray:
    """``count`` neighbouring powers of two, ascending (fewer at the type's ends), of the least
    error for positive ``values``; of equally good ranges the highest; none without values."""
    if values.size == 0:
        return np.zeros(0)
    # Exponents of the nearest powers, twice, plus one where the value is above its power.
    exponents = np.frexp(values * (4 / 3))[1].astype(np.int64) - 1
    distances = values - np.ldexp(1.0, exponents)
    keys = 2 * exponents + (distances > 0)
    base = int(keys.min())
    number, first, second = (
        np.bincount(keys - base, weights * distances**power) for power in range(3)
    )
    keys = base + np.flatnonzero(number > 0)
    number, first, second = (sums[keys - base] for sums in (number, first, second))
    nearest = keys // 2
    lowest, highest = (
        math.frexp(limit(dtype))[1] - 1 for limit in (least_positive, largest_finite)
    )
    best, least = 0, np.inf
    for top in range(
        min(int(nearest[-1]), highest), max(min(int(nearest[0]), highest), lowest) - 1, -1
    ):
        bottom = max(top - count + 1, lowest)
        targets = np.where(keys >= 2 * bottom - 1, np.exp2(np.clip(nearest, bottom, top)), 0.0)
        moves = np.exp2(nearest.astype(np.float64)) - targets
        error = float(np.sum(second + moves * (2 * first + moves * number)))
        if error < least:
            best, least = top, error
    return np.exp2(np.arange(max(best - count + 1, lowest), best + 1, dtype=np.float64))
