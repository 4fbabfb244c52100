# SPDX-License-Identifier: Apache-2.0
"""The values that the symbols of uniform quantisation stand for, and the nearest symbol of each
weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.schemes.scaling import largest_finite
from passes.schemes.weight_values import Rounding, stochastically_rounded

_MAX_INT16 = 2**15 - 1


@dataclass(frozen=True, eq=False)
class Grid:
    """The values that symbols stand for, one grid per index of the middle axis of a folded weight.

    Attributes:
        scale: float32 [n], positive.
        dtype: Of the weight.
        low, high: Limits of the symbols; None for no other than those of 16 bits.
        zero: float64 integers [n], the symbols of zero; None for 0.
        offset: float32 [n], added after the scale.
    """

    scale: np.ndarray
    dtype: np.dtype
    low: int | None = None
    high: int | None = None
    zero: np.ndarray | None = None
    offset: np.ndarray | None = None

    def symbols(self, folded: np.ndarray, rounding: Rounding, seed: int) -> np.ndarray:
        """float32 integers for a float32 array [before, n, inside].

        No symbol stands for a value beyond the largest finite one of the weight's type.
        """
        column = (slice(None), None)
        moved = folded if self.offset is None else folded - self.offset[column]
        exact = moved / self.scale[column]
        steps = np.rint(exact)
        if rounding == "stochastic":
            held = self.values(steps) == folded  # as near as the weight's type comes
            steps = np.where(held, steps, stochastically_rounded(exact, seed))
        reach = np.floor(largest_finite(self.dtype) / self.scale.astype(np.float64))
        if self.offset is None and reach.min() <= _MAX_INT16:
            np.clip(steps, -reach[column], reach[column], out=steps)
        if self.zero is not None:
            steps += self.zero.astype(np.float32)[column]
        if self.low is not None:
            np.clip(steps, self.low, self.high, out=steps)
        return np.asarray(steps)

    def values(self, steps: np.ndarray) -> np.ndarray:
        """What float32 integers [before, n, inside], symbol minus zero, stand for: float32 numbers
        that the weight's type holds."""
        column = (slice(None), None)
        values = steps * self.scale[column]
        if self.offset is not None:
            values += self.offset[column]
        if self.dtype != np.float32:
            values = values.astype(self.dtype).astype(np.float32)
        return np.asarray(values)

    def decoded(self, ends: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What the two ends [n] of the weight's range decode to, as float64."""
        steps = self.symbols(np.stack(ends).astype(np.float32)[:, :, None], "nearest", 0)
        if self.zero is not None:
            steps -= self.zero.astype(np.float32)[:, None]
        low, high = self.values(steps)[:, :, 0].astype(np.float64)
        return low, high

    def equals(self, other: Grid) -> bool:
        """Whether both have the same scales, zeros and offsets."""
        pairs = ((self.zero, other.zero), (self.offset, other.offset))
        return np.array_equal(self.scale, other.scale) and all(
            (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
            for a, b in pairs
        )
