# SPDX-License-Identifier: Apache-2.0
"""Lossless coding: floats as byte planes, 8-bit integers as symbols; decodes to the very same
bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters
from passes.schemes.coded_bits import coded_bits
from passes.schemes.entropy import entropy_bits
from runtime.planes import join_planes, split_planes

# Bits per element above which a plane is stored as bytes: coding would hardly save anything.
_MAX_CODED_BITS = 7.9

# Values so near to the middle of their type need no offset of their own.
_NEAR = 2


@dataclass(frozen=True, eq=False)
class LosslessParameters(Parameters):
    """A float tensor as byte planes, the one of sign and exponent first (FORMAT.md, lossless
    floats).

    Attributes:
        planes: uint8 arrays of the weight's shape, one per byte of its type.
        coded: For each plane whether it is worth entropy coding; the first one always is.
        dtype: float32, float16 or bfloat16.
    """

    planes: tuple[np.ndarray, ...]
    coded: tuple[bool, ...]
    dtype: np.dtype

    name: ClassVar[str] = "lossless"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.planes[0].shape

    def decode(self) -> np.ndarray:
        """The array that was fitted, bit for bit."""
        return np.asarray(join_planes(list(self.planes), self.dtype)).reshape(self.shape)

    def bits(self) -> float:
        """The entropy of what is coded, 8 per element of each other plane."""
        pairs = zip(self.planes, self.coded, strict=True)
        return sum(entropy_bits(plane) if coded else 8.0 * plane.size for plane, coded in pairs)


@dataclass(frozen=True, eq=False)
class IntegerParameters(Parameters):
    """An 8-bit integer tensor as int8 or int16 symbols: value = symbol + ``offset``."""

    symbols: np.ndarray
    offset: int
    dtype: np.dtype

    name: ClassVar[str] = "lossless"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.symbols.shape

    def decode(self) -> np.ndarray:
        """The array that was fitted."""
        return (self.symbols.astype(np.int16) + self.offset).astype(self.dtype)

    def bits(self) -> float:
        """The symbols' entropy."""
        return entropy_bits(self.symbols)


@dataclass(frozen=True)
class Lossless:
    """Fits float32, float16 and bfloat16 arrays to byte planes, int8 and uint8 arrays to
    symbols."""

    def fit(
        self, weight: np.ndarray, context: FitContext | None = None
    ) -> LosslessParameters | IntegerParameters:
        """Takes any values, NaN and infinity included; SchemeError for an empty array or another
        type."""
        if weight.size == 0:
            raise SchemeError("the tensor is empty")
        if weight.dtype in (np.int8, np.uint8):
            return _integers(weight)
        if weight.dtype.name not in ("float32", "float16", "bfloat16"):
            raise SchemeError(f"lossless: no coding for type {weight.dtype.name}")
        contiguous = np.ascontiguousarray(weight).reshape(weight.shape)
        planes = tuple(np.asarray(p).reshape(weight.shape) for p in split_planes(contiguous))
        coded = (True, *(_worth_coding(plane) for plane in planes[1:]))
        return LosslessParameters(planes, coded, weight.dtype)


def _integers(weight: np.ndarray) -> IntegerParameters:
    """Symbols around the middle of the type, or around the most frequent value where that takes
    fewer bits: an asymmetric zero point is where magnitudes, which choose the tables, begin."""
    middle = 0 if weight.dtype == np.int8 else 128
    around_middle = IntegerParameters(_less(weight, middle), middle, weight.dtype)
    lowest = int(np.iinfo(weight.dtype).min)
    counts = np.bincount(weight.reshape(-1).astype(np.int16) - lowest, minlength=256)
    peak = int(counts.argmax()) + lowest
    if abs(peak - middle) <= _NEAR:
        return around_middle
    around_peak = IntegerParameters(_less(weight, peak), peak, weight.dtype)
    return min(around_middle, around_peak, key=coded_bits)


def _less(weight: np.ndarray, offset: int) -> np.ndarray:
    """``weight`` minus ``offset``, int8 where that holds all of it, else int16."""
    symbols = weight.astype(np.int16) - np.int16(offset)
    return symbols.astype(np.int8) if (symbols == symbols.astype(np.int8)).all() else symbols


def _worth_coding(plane: np.ndarray) -> bool:
    """Whether the entropy and a table of one byte per value leave a gain."""
    span = int(plane.max()) - int(plane.min()) + 1
    return entropy_bits(plane) + 8 * span < _MAX_CODED_BITS * plane.size
