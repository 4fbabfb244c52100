# SPDX-License-Identifier: Apache-2.0
"""One or two magnitudes: binary {-1, 1}, scaled binary {-c, c} and scaled ternary {-c, 0, c}.

The exact minima of the squared error: Carreira-Perpinan and Idelbayev 2017, "Model compression as
constrained optimization, with application to neural nets. Part II: quantization", section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from passes.schemes.base import FitContext
from passes.schemes.partition import Granularity, Partition, check_partition, partition
from passes.schemes.scaling import representable_scale
from passes.schemes.uniform import UniformParameters, parameters_of
from passes.schemes.uniform_grid import Grid
from passes.schemes.weight_values import finite_float32, importance_of, mask_of

P = TypeVar("P", bound=UniformParameters)

_TINY = np.finfo(np.float64).tiny  # stands for 0 in divisors


@dataclass(frozen=True, eq=False)
class BinaryParameters(UniformParameters):
    """Symbols -1 and 1, and 0 for what is pruned or shares the scale zero."""

    name: ClassVar[str] = "binary"


@dataclass(frozen=True, eq=False)
class TernaryParameters(UniformParameters):
    """Symbols -1, 0 and 1."""

    name: ClassVar[str] = "ternary"


@dataclass(frozen=True)
class Binary:
    """The sign of each weight, times c. Zero counts as positive; pruned elements decode to zero.

    Attributes:
        scaled: Whether c is the mean magnitude (weighted by the context's importance), the
            optimum, rather than 1. Where all weights that share it are zero, they stay zero.
        granularity: One c per tensor, row, group or bucket.
        axis: The axis of ``row``; None for the output channels', where known, else the first.
        group_size: Wanted elements per group or bucket; 32 and 256 where None.
    """

    scaled: bool = True
    granularity: Granularity = "tensor"
    axis: int | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        check_partition("binary", self.granularity, self.group_size)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> BinaryParameters:
        """Fits a float32, float16 or bfloat16 array of any shape; SchemeError for an empty one,
        NaN or infinity."""
        context = context or FitContext()
        values = finite_float32(weight)
        granularity = self.granularity if self.scaled else "tensor"
        part = partition("binary", weight.shape, granularity, self.axis, self.group_size, context)
        magnitudes, counts = _magnitudes(weight, part, context)
        signs = np.where(values < 0, np.float32(-1), np.float32(1))
        size = np.ones(part.scale_shape).reshape(-1)
        if self.scaled:
            size = (magnitudes * counts).sum(axis=1) / np.maximum(counts.sum(axis=1), _TINY)
            signs *= part.spread((size > 0).reshape(part.scale_shape))
        return _with_signs(BinaryParameters, signs, size, weight, part, context)


@dataclass(frozen=True)
class Ternary:
    """-c, 0 or c: with the magnitudes in falling order, c is the mean of the first j of them for
    the j that maximises their sum divided by the root of j. Others become zero.

    Magnitudes and j count as often as the context's importance says.

    Attributes:
        granularity: One c per tensor, row, group or bucket.
        axis: The axis of ``row``; None for the output channels', where known, else the first.
        group_size: Wanted elements per group or bucket; 32 and 256 where None.
    """

    granularity: Granularity = "tensor"
    axis: int | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        check_partition("ternary", self.granularity, self.group_size)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> TernaryParameters:
        """Fits a float32, float16 or bfloat16 array of any shape; SchemeError for an empty one,
        NaN or infinity."""
        context = context or FitContext()
        values = finite_float32(weight)
        part = partition(
            "ternary", weight.shape, self.granularity, self.axis, self.group_size, context
        )
        magnitudes, counts = _magnitudes(weight, part, context)
        order = np.argsort(-magnitudes, axis=1, kind="stable")
        falling = np.take_along_axis(magnitudes, order, axis=1).astype(np.float64)
        number = np.cumsum(np.take_along_axis(counts, order, axis=1), axis=1)
        total = np.cumsum(falling * np.take_along_axis(counts, order, axis=1), axis=1)
        best = np.argmax(total / np.sqrt(np.maximum(number, _TINY)), axis=1)[:, None]
        number, total = (np.take_along_axis(sums, best, axis=1)[:, 0] for sums in (number, total))
        size = total / np.maximum(number, _TINY)
        least = np.take_along_axis(falling, best, axis=1)[:, 0].reshape(part.scale_shape)
        taken = (np.abs(values) >= part.spread(least)) & (values != 0)
        signs = np.where(taken, np.sign(values), np.float32(0))
        return _with_signs(TernaryParameters, signs, size, weight, part, context)


def _magnitudes(
    weight: np.ndarray, part: Partition, context: FitContext
) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes [scales, elements], and how much each counts: its importance, 0 where pruned."""
    importance, mask = importance_of(weight, context), mask_of(weight, context)
    kept = part.fold_kept(mask)
    magnitudes = part.fold(np.abs(finite_float32(weight)))
    counts = np.ones(magnitudes.shape) if importance is None else part.fold(importance)
    if kept is not None:
        counts = np.where(kept, counts, 0.0)
        magnitudes = np.where(kept, magnitudes, np.float32(0))
    count = magnitudes.shape[1]
    return (
        np.moveaxis(magnitudes, 1, 0).reshape(count, -1),
        np.moveaxis(counts, 1, 0).reshape(count, -1),
    )


def _with_signs(
    kind: type[P],
    signs: np.ndarray,
    size: np.ndarray,
    weight: np.ndarray,
    part: Partition,
    context: FitContext,
) -> P:
    mask = mask_of(weight, context)
    if mask is not None:
        signs = np.where(mask, signs, np.float32(0))
    grid = Grid(representable_scale(size, weight.dtype), weight.dtype)
    return parameters_of(kind, signs, grid, part, weight.dtype)
