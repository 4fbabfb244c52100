# SPDX-License-Identifier: Apache-2.0
"""Fixed point: i integer and f fraction bits in two's complement, saturating at both ends.

The number format Qi.f of the quantisers in nn-compression and of most signal processors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext
from passes.schemes.partition import Partition
from passes.schemes.uniform import UniformParameters, parameters_of
from passes.schemes.uniform_grid import Grid
from passes.schemes.weight_values import Rounding, check_rounding, finite_float32, mask_of

_MAX_BITS = 16
_FRACTIONS = range(-15, 25)  # steps that float16 holds


@dataclass(frozen=True, eq=False)
class FixedPointParameters(UniformParameters):
    """Symbols that are multiples of a power of two."""

    name: ClassVar[str] = "fixed_point"

    def bits(self) -> float:
        """The symbols' entropy, and one byte for the number of fraction bits."""
        return super().bits() - 32 * self.scale.size + 8


@dataclass(frozen=True)
class FixedPoint:
    """Values k * 2^-fraction_bits with -2^(b-1) <= k <= 2^(b-1) - 1, b = integer_bits +
    fraction_bits.

    Values outside become the nearest end. Idempotent, and with rounding to the nearest the
    projection on these values.

    Attributes:
        integer_bits: Bits before the point, the sign's included; may be negative where the leading
            fraction bits are left out.
        fraction_bits: Bits behind the point, -15 to 24; b is 1 to 16.
        rounding: To the nearest value, or up or down at random without bias.
    """

    integer_bits: int
    fraction_bits: int
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        number = self.integer_bits + self.fraction_bits
        if not 1 <= number <= _MAX_BITS:
            raise SchemeError(
                f"fixed_point: integer_bits + fraction_bits must be 1 to {_MAX_BITS}, not {number}"
            )
        if self.fraction_bits not in _FRACTIONS:
            raise SchemeError(
                f"fixed_point: fraction_bits must be {_FRACTIONS[0]} to {_FRACTIONS[-1]}, "
                f"not {self.fraction_bits}"
            )
        check_rounding("fixed_point", self.rounding)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> FixedPointParameters:
        """Rounds a float32, float16 or bfloat16 array of any shape; SchemeError for an empty one,
        NaN or infinity."""
        context = context or FitContext()
        values, mask = finite_float32(weight), mask_of(weight, context)
        half = 2 ** (self.integer_bits + self.fraction_bits - 1)
        scale = np.array([2.0**-self.fraction_bits], np.float32)
        grid = Grid(scale, weight.dtype, low=-half, high=half - 1)
        part = Partition(values.shape)
        symbols = part.unfold(grid.symbols(part.fold(values), self.rounding, context.seed))
        if mask is not None:
            symbols = np.where(mask, symbols, np.float32(0))
        return parameters_of(FixedPointParameters, symbols, grid, part, weight.dtype)
