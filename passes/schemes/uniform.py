# SPDX-License-Identifier: Apache-2.0
"""Uniform quantisation: weight = (symbol - zero point) * scale [+ offset], exactly as
DequantizeLinear and Add do it.

Ranges as in Polino, Pascanu, Alistarh 2018, "Model compression via distillation and quantization",
section 3: linear scaling, by the largest magnitude, or by the norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters
from passes.schemes.entropy import entropy_bits
from passes.schemes.partition import Granularity, Partition, check_partition, partition
from passes.schemes.scale_table import scale_bits
from passes.schemes.scaling import Scaling, ends_of, norm_of, representable_scale
from passes.schemes.uniform_grid import Grid
from passes.schemes.weight_values import (
    Rounding,
    check_rounding,
    finite_float32,
    mask_of,
)

_MAX_INT8, _MAX_INT16 = 2**7 - 1, 2**15 - 1
_SETTLING = 64  # refits of a grid to its own ends


@dataclass(frozen=True, eq=False)
class UniformParameters(Parameters):
    """A fitted uniform quantiser.

    Attributes:
        symbols: int8 or int16, the weight's shape.
        scale: float32, positive, of ``Partition.scale_shape``: () for one per tensor,
            (shape[axis],) for one per row, (..., shape[-1] / block_size) for one per group,
            (buckets,) for one per bucket.
        zero_point: ``scale``'s shape, dtype of ``symbols``; None where all are zero.
        axis: The axis of a scale per row or per group (then the last one); None per tensor and
            bucket.
        block_size: Elements per group along the last axis, or per bucket of the flat weight (then
            ``axis`` is None); 0 without.
        dtype: The weight's own type.
        offset: float32, ``scale``'s shape, added after the scale; None where there is none.
    """

    symbols: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    axis: int | None
    block_size: int
    dtype: np.dtype
    offset: np.ndarray | None = None

    name: ClassVar[str] = "uniform"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.symbols.shape

    @property
    def partition(self) -> Partition:
        """Which symbols share a scale."""
        return Partition(self.symbols.shape, self.axis, self.block_size)

    def decode(self) -> np.ndarray:
        """float32 arithmetic, then rounded to the weight's type."""
        spread = self.partition.spread
        values = np.asarray(self.symbols.astype(np.float32))
        if self.zero_point is not None:
            values -= spread(self.zero_point.astype(np.float32))
        values *= spread(self.scale)
        if self.offset is not None:
            values += spread(self.offset)
        return values.astype(self.dtype, copy=False)

    def bits(self) -> float:
        """The symbols' entropy, the scales, 32 per offset, one symbol's width per zero point."""
        zero, offset = self.zero_point, self.offset
        side = scale_bits(self.scale) + (0 if zero is None else 8 * zero.nbytes)
        return entropy_bits(self.symbols) + side + (0 if offset is None else 32 * offset.size)


P = TypeVar("P", bound=UniformParameters)


@dataclass(frozen=True)
class Uniform:
    """How to quantise: exactly one of ``bits``, ``step`` and ``relative_step``.

    With ``bits`` or ``step`` the fit is idempotent: the scale of what was decoded is the scale that
    it was decoded with. Exceptions: ``absnorm``, whose norm rounding changes; stochastic rounding
    without ``symmetric``, where an end of the range is no value of the grid; and the last bit of a
    ``linear`` grid that is finer than float32 at its offset. Pruned elements (the context's mask)
    decode to zero.

    Attributes:
        bits: 2 to 16 (from 1 on for ``linear`` and without ``symmetric``); the scale follows from
            the largest magnitude, the range or the norm.
        step: The scale itself.
        relative_step: The scale as a multiple of the root mean square of what shares it.
        symmetric: Without zero point; otherwise the range, which then holds zero, is centred on
            the symbols' range.
        granularity: One scale per tensor, per index of ``axis``, per group on the last axis, or per
            bucket of the flat tensor.
        axis: The axis of ``row``; None for the output channels', where known, else the first.
        group_size: Wanted elements per group (the largest divisor of the last axis up to it is
            used; 32 where None) or per bucket (256 where None).
        scaling: What ``bits`` divide: ``absmax`` from minus to plus the largest magnitude into
            2^bits - 1 values; ``linear`` from the least to the largest value into 2^bits values,
            zero not being one of them unless elements are pruned, for which the grid is moved as
            without ``symmetric``; ``absnorm`` from minus to plus the Euclidean norm.
        rounding: To the nearest value, or up or down at random without bias.
        dead_zone: What lies within so many steps of zero becomes zero, 0.5 (no more than rounding
            does) to 1: more zeros for fewer bits (G. Sullivan, "Efficient scalar quantization of
            exponential and Laplacian random variables", 1996).
    """

    bits: int | None = None
    step: float | None = None
    relative_step: float | None = None
    symmetric: bool = True
    granularity: Granularity = "tensor"
    axis: int | None = None
    group_size: int | None = None
    scaling: Scaling = "absmax"
    rounding: Rounding = "nearest"
    dead_zone: float = 0.5

    def __post_init__(self) -> None:
        given = [v for v in (self.bits, self.step, self.relative_step) if v is not None]
        if len(given) != 1:
            raise SchemeError("uniform: give exactly one of bits, step and relative_step")
        if self.scaling not in ("absmax", "linear", "absnorm"):
            raise SchemeError(
                f"uniform: scaling must be absmax, linear or absnorm, not {self.scaling!r}"
            )
        if self.scaling != "absmax" and not (self.symmetric and self.bits is not None):
            raise SchemeError(
                f"uniform: scaling {self.scaling} goes with bits, and not with symmetric: false"
            )
        least = 1 if self.scaling == "linear" or not self.symmetric else 2
        if self.bits is not None and not least <= self.bits <= 16:
            raise SchemeError(f"uniform: bits must be {least} to 16, not {self.bits}")
        if not (np.isfinite(given[0]) and given[0] > 0):
            raise SchemeError(f"uniform: the step must be positive and finite, not {given[0]}")
        check_partition("uniform", self.granularity, self.group_size)
        check_rounding("uniform", self.rounding)
        if not 0.5 <= self.dead_zone <= 1:
            raise SchemeError(f"uniform: dead_zone must be 0.5 to 1, not {self.dead_zone}")
        if self.dead_zone > 0.5 and not (self.symmetric and self.scaling != "linear"):
            raise SchemeError("uniform: a dead_zone goes with symmetric, and not with linear")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> UniformParameters:
        """Quantises a float32, float16 or bfloat16 array of any shape.

        What is all zero gets scale 1. Raises SchemeError for an empty array, for NaN or infinity,
        and for a step so small that symbols leave 16 bits.
        """
        context = context or FitContext()
        values, mask = finite_float32(weight), mask_of(weight, context)
        if mask is not None:
            values = np.where(mask, values, np.float32(0))
            if self.scaling == "linear":
                return replace(self, scaling="absmax", symmetric=False).fit(weight, context)
        part = partition(
            "uniform", values.shape, self.granularity, self.axis, self.group_size, context
        )
        folded, kept = part.fold(values), part.fold_kept(mask)
        grid = self._grid(folded, kept, weight.dtype)
        chosen = grid.symbols(folded, self.rounding, context.seed)
        if self.dead_zone > 0.5:
            zone = np.float32(self.dead_zone) * grid.scale.astype(np.float32)
            chosen = np.where(np.abs(folded) < zone[:, None], np.int64(0), chosen)
        symbols = part.unfold(chosen)
        if mask is not None:
            zero = 0 if grid.zero is None else part.spread(grid.zero.reshape(part.scale_shape))
            symbols = np.where(mask, symbols, zero)
        return parameters_of(UniformParameters, symbols, grid, part, weight.dtype)

    def _grid(self, folded: np.ndarray, kept: np.ndarray | None, dtype: np.dtype) -> Grid:
        ends = ends_of(folded, kept)
        if self.bits is None:
            return self._stepped(folded, kept, ends, dtype)
        if self.scaling == "absnorm":
            high = 2 ** (self.bits - 1) - 1
            scale = representable_scale(norm_of(folded, kept) / high, dtype)
            return Grid(scale, dtype, low=-high, high=high)
        grid = self._ranged(self.bits, ends, dtype)
        for _ in range(_SETTLING):  # monotone where symmetric, so that it ends
            again = self._ranged(self.bits, grid.decoded(ends), dtype)
            if again.equals(grid):
                break
            grid = again
        return grid

    def _stepped(
        self,
        folded: np.ndarray,
        kept: np.ndarray | None,
        ends: tuple[np.ndarray, np.ndarray],
        dtype: np.dtype,
    ) -> Grid:
        """The grid of a given step; the affine form centres the symbols of the range on zero."""
        if self.step is not None:
            scale = np.full(folded.shape[1], self.step, np.float64)
        else:
            count = np.full(folded.shape[1], folded.shape[0] * folded.shape[2])
            if kept is not None:
                count = np.maximum(np.count_nonzero(kept, axis=(0, 2)), 1)
            scale = np.float64(self.relative_step or 0) * norm_of(folded, kept) / np.sqrt(count)
        scale = representable_scale(scale, dtype)
        if self.symmetric:
            return Grid(scale, dtype)
        return Grid(scale, dtype, zero=np.rint(-0.5 * (ends[0] + ends[1]) / scale))

    def _ranged(self, bits: int, ends: tuple[np.ndarray, np.ndarray], dtype: np.dtype) -> Grid:
        """The grid of 2^bits symbols (one fewer where symmetric) over the ends."""
        smallest, largest = ends
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        if self.scaling == "linear":
            scale = representable_scale((largest - smallest) / (high - low), np.dtype(np.float32))
            constant = smallest == largest
            offset = np.where(constant, smallest, smallest - low * scale.astype(np.float64))
            return Grid(scale, dtype, low=low, high=high, offset=offset.astype(np.float32))
        if not self.symmetric:  # zero stays representable
            smallest, largest = np.minimum(smallest, 0.0), np.maximum(largest, 0.0)
            scale = representable_scale((largest - smallest) / (high - low), dtype)
            zero = np.clip(np.rint(low - smallest / scale), low, high)
            return Grid(scale, dtype, low=low, high=high, zero=zero)
        scale = representable_scale(np.maximum(-smallest, largest) / high, dtype)
        return Grid(scale, dtype, low=-high, high=high)


def parameters_of(
    kind: type[P], symbols: np.ndarray, grid: Grid, part: Partition, dtype: np.dtype
) -> P:
    """Parameters of ``kind`` with symbols of the smallest type; SchemeError where 16 bits are too
    few."""
    peak = _peak(symbols)
    if peak > _MAX_INT16:
        raise SchemeError(f"uniform: the step needs symbols up to {peak:.0f}, more than 16 bits")
    zero = grid.zero
    if zero is not None:
        peak = max(peak, _peak(zero))
        if peak > _MAX_INT16:
            raise SchemeError("uniform: the zero point leaves 16 bits; take the symmetric form")
    integer = np.int8 if peak <= _MAX_INT8 else np.int16
    shape = part.scale_shape
    return kind(
        symbols=symbols.astype(integer),
        scale=grid.scale.reshape(shape),
        zero_point=None if zero is None or not zero.any() else zero.astype(integer).reshape(shape),
        axis=part.axis,
        block_size=part.block_size,
        dtype=dtype,
        offset=None if grid.offset is None else grid.offset.reshape(shape),
    )


def _peak(values: np.ndarray) -> float:
    """The least m such that all of ``values`` lie in -m - 1 … m."""
    return max(float(values.max()), -float(values.min()) - 1)
