# SPDX-License-Identifier: Apache-2.0
"""Uniform quantisation: weight = (symbol - zero point) * scale, exactly as DequantizeLinear does
it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters
from passes.schemes.entropy import entropy_bits

Granularity = Literal["tensor", "row", "group"]
_MAX_INT8, _MAX_INT16 = 2**7 - 1, 2**15 - 1


@dataclass(frozen=True, eq=False)
class UniformParameters(Parameters):
    """A fitted uniform quantiser.

    Attributes:
        symbols: int8 or int16, the weight's shape.
        scale: float32, positive; shape () for one per tensor, (shape[axis],) for one per row,
            (..., shape[-1] / block_size) for one per group.
        zero_point: ``scale``'s shape, dtype of ``symbols``; None where all are zero.
        axis: The axis of a scale per row or per group (then the last one); None per tensor.
        block_size: Elements per group along the last axis; 0 without groups.
        dtype: The weight's own type.
    """

    symbols: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    axis: int | None
    block_size: int
    dtype: np.dtype

    name: ClassVar[str] = "uniform"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.symbols.shape

    def decode(self) -> np.ndarray:
        """float32 arithmetic, then rounded to the weight's type."""
        values = self.symbols.astype(np.float32)
        if self.zero_point is not None:
            values -= _spread(self.zero_point.astype(np.float32), self)
        values *= _spread(self.scale, self)
        return values.astype(self.dtype, copy=False)

    def bits(self) -> float:
        """The symbols' entropy, 32 per scale and one symbol's width per zero point."""
        zero = self.zero_point
        side = 32 * self.scale.size + (0 if zero is None else 8 * zero.nbytes)
        return entropy_bits(self.symbols) + side


@dataclass(frozen=True)
class Uniform:
    """How to quantise: exactly one of ``bits``, ``step`` and ``relative_step``.

    Attributes:
        bits: 2 to 16; the scale follows from the largest magnitude (symmetric) or the range.
        step: The scale itself.
        relative_step: The scale as a multiple of the root mean square of the tensor, row or group.
        symmetric: Without zero point; otherwise the range is centred on the symbols' range.
        granularity: One scale per tensor, per index of ``axis``, or per group on the last axis.
        axis: The axis of ``row``.
        group_size: Wanted elements per group; the largest divisor of the last axis up to it is
            used.
    """

    bits: int | None = None
    step: float | None = None
    relative_step: float | None = None
    symmetric: bool = True
    granularity: Granularity = "tensor"
    axis: int = 0
    group_size: int = 32

    def __post_init__(self) -> None:
        given = [v for v in (self.bits, self.step, self.relative_step) if v is not None]
        if len(given) != 1:
            raise SchemeError("uniform: give exactly one of bits, step and relative_step")
        if self.bits is not None and not 2 <= self.bits <= 16:
            raise SchemeError(f"uniform: bits must be 2 to 16, not {self.bits}")
        if not (np.isfinite(given[0]) and given[0] > 0):
            raise SchemeError(f"uniform: the step must be positive and finite, not {given[0]}")
        if self.group_size < 1:
            raise SchemeError(f"uniform: group_size must be at least 1, not {self.group_size}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> UniformParameters:
        """Quantises a float32, float16 or bfloat16 array of any shape.

        All-zero tensors, rows and groups get scale 1. Raises SchemeError for an empty array, for
        NaN or infinity, and for a step so small that symbols leave 16 bits.
        """
        values = finite_float32(weight)
        granularity = self.granularity if values.ndim else "tensor"
        axis, block_size = None, 0
        folded = values.reshape((1, -1, 1))  # [before, scale index, inside] seen by one scale each
        if granularity == "row":
            if not -values.ndim <= self.axis < values.ndim:
                raise SchemeError(f"uniform: axis {self.axis} is outside of rank {values.ndim}")
            axis = self.axis % values.ndim
            before = int(np.prod(values.shape[:axis]))
            folded = values.reshape((before, values.shape[axis], -1))
        elif granularity == "group":
            axis = values.ndim - 1
            block_size = largest_divisor(values.shape[-1], self.group_size)
            folded = values.reshape((1, -1, block_size))
        else:
            folded = values.reshape((1, 1, -1))
        scale, zero = self._scales(folded, weight.dtype)
        symbols = np.rint(folded / scale[None, :, None])
        low, high = _limits(self.bits, self.symmetric)
        if zero is not None:
            symbols += zero[None, :, None]
        if self.bits is not None:
            np.clip(symbols, low, high, out=symbols)
        peak = _peak(symbols)
        if peak > _MAX_INT16:
            raise SchemeError(
                f"uniform: the step needs symbols up to {peak:.0f}, more than 16 bits"
            )
        if zero is not None:
            peak = max(peak, _peak(zero))
            if peak > _MAX_INT16:
                raise SchemeError("uniform: the zero point leaves 16 bits; take the symmetric form")
        kind = np.int8 if peak <= _MAX_INT8 else np.int16
        shape: tuple[int, ...] = ()
        if granularity == "row" and axis is not None:
            shape = (values.shape[axis],)
        elif granularity == "group":
            shape = (*values.shape[:-1], values.shape[-1] // block_size)
        return UniformParameters(
            symbols=symbols.astype(kind).reshape(values.shape),
            scale=scale.reshape(shape),
            zero_point=None if zero is None or not zero.any() else zero.astype(kind).reshape(shape),
            axis=axis,
            block_size=block_size,
            dtype=weight.dtype,
        )

    def _scales(self, folded: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None]:
        """One float32 scale, and for the affine form one zero point, per index of the middle
        axis."""
        low, high = _limits(self.bits, self.symmetric)
        smallest = folded.min(axis=(0, 2)).astype(np.float64)
        largest = folded.max(axis=(0, 2)).astype(np.float64)
        if not self.symmetric and self.bits is not None:  # zero stays representable
            smallest, largest = np.minimum(smallest, 0.0), np.maximum(largest, 0.0)
        if self.step is not None:
            scale = np.full(smallest.shape, self.step, np.float64)
        elif self.relative_step is not None:
            count = folded.shape[0] * folded.shape[2]
            squares = np.einsum("abc,abc->b", folded, folded, dtype=np.float64)
            scale = self.relative_step * np.sqrt(squares / count)
        elif self.symmetric:
            scale = np.maximum(np.abs(smallest), np.abs(largest)) / high
        else:
            scale = (largest - smallest) / (high - low)
        rounded = representable_scale(scale, dtype)
        if self.symmetric:
            return rounded, None
        centre = low if self.bits is not None else 0.0
        origin = smallest if self.bits is not None else 0.5 * (smallest + largest)
        zero = np.rint(centre - origin / rounded.astype(np.float64))
        if self.bits is not None:
            zero = np.clip(zero, low, high)
        return rounded, zero.astype(np.float32)


def finite_float32(weight: np.ndarray) -> np.ndarray:
    """``weight`` as float32, without a copy where it is that already; SchemeError if empty or not
    finite."""
    if weight.size == 0:
        raise SchemeError("the tensor is empty")
    values = np.asarray(weight, dtype=np.float32)
    if not np.isfinite(values).all():
        raise SchemeError("the tensor holds NaN or infinity")
    return values


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit``, or ``number`` where that is
    1."""
    best = next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
    return number if best == 1 and limit > 1 else best


def representable_scale(scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float32 scales; for a float16 weight ones that float16 holds too, so that both forms
    agree."""
    positive = np.where(scale > 0, scale, 1.0)
    if dtype == np.float16:
        half = np.clip(positive, 2.0**-24, 65504.0).astype(np.float16)
        return half.astype(np.float32)
    return np.maximum(positive, np.finfo(np.float32).tiny).astype(np.float32)


def _peak(values: np.ndarray) -> float:
    """The least m such that all of ``values`` lie in -m - 1 … m."""
    return max(float(values.max()), -float(values.min()) - 1)


def _limits(bits: int | None, symmetric: bool) -> tuple[int, int]:
    """Lowest and highest symbol; without ``bits`` those of 16 bits."""
    high = 2 ** ((16 if bits is None else bits) - 1) - 1
    return (-high if symmetric else -high - 1), high


def _spread(values: np.ndarray, parameters: UniformParameters) -> np.ndarray:
    """Scales or zero points, shaped to broadcast against the symbols."""
    if parameters.block_size:
        return np.repeat(values, parameters.block_size, axis=-1)
    if parameters.axis is None or values.ndim == 0:
        return values
    shape = [1] * parameters.symbols.ndim
    shape[parameters.axis] = values.size
    return values.reshape(shape)
