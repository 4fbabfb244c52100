# SPDX-License-Identifier: Apache-2.0
"""Sums: a weight as, for example, quantised + sparse + low-rank parts, fitted by alternating on the
residual (Idelbayev and Carreira-Perpinan 2021, "More General and Effective Model Compression via an
Additive Combination of Compressions", section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.weight_values import finite_float32

_ALL_ORDERS = 3  # parts up to which every order is tried


@dataclass(frozen=True, eq=False)
class SumParameters(Parameters):
    """Fitted parts, each of the weight's shape and type; parts that would not lower the error are
    left out."""

    parts: tuple[Parameters, ...]

    name: ClassVar[str] = "sum"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.parts[0].dtype

    def decode(self) -> np.ndarray:
        """The parts added up in float32 in their order, rounded to the weight's type."""
        total = self.parts[0].decode().astype(np.float32)
        for part in self.parts[1:]:
            total += part.decode().astype(np.float32)
        return total.astype(self.dtype, copy=False)

    def bits(self) -> float:
        """Those of the parts."""
        return sum(part.bits() for part in self.parts)

    def children(self) -> tuple[Parameters, ...]:
        return self.parts


@dataclass(frozen=True)
class Sum:
    """How to fit: each part to what the others leave, in turn, until the error stops falling.

    The result depends on which part comes first, so every order of up to three parts is begun, and
    of more parts every rotation; the best beginning is continued. A new fit is kept only if the
    error falls: the error never rises and is never above that of the best single part.

    Attributes:
        parts: At least one scheme.
        iterations: Rounds over all parts at most.
        tolerance: A round that lowers the squared error by less than this share is the last.
    """

    parts: tuple[Scheme, ...]
    iterations: int = 20
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not self.parts:
            raise SchemeError("sum: give at least one part")
        if self.iterations < 1:
            raise SchemeError(f"sum: iterations must be at least 1, not {self.iterations}")
        if not self.tolerance >= 0:
            raise SchemeError(f"sum: the tolerance must be at least 0, not {self.tolerance}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> SumParameters:
        """Fits a float array; SchemeError if it is empty or not finite, and what a part raises."""
        return self.fit_with_errors(weight, context)[0]

    def fit_with_errors(
        self, weight: np.ndarray, context: FitContext | None = None
    ) -> tuple[SumParameters, list[float]]:
        """The same, and the squared error (weighted by the importance) after each round."""
        context = context or FitContext()
        finite_float32(weight)
        best: _Fit | None = None
        for order in self._orders():
            fit = _Fit(self.parts, weight, context)
            fit.round(order)
            best = fit if best is None or fit.error < best.error else best
        if best is None:
            raise SchemeError("sum: give at least one part")
        errors = [best.error]
        for _ in range(self.iterations - 1):
            best.round(range(len(self.parts)))
            errors.append(best.error)
            if errors[-2] - errors[-1] <= self.tolerance * errors[-2]:
                break
        return SumParameters(best.found()), errors

    def _orders(self) -> Iterable[tuple[int, ...]]:
        count = len(self.parts)
        if count <= _ALL_ORDERS:
            return permutations(range(count))
        return [tuple((first + i) % count for i in range(count)) for first in range(count)]


class _Fit:
    """Parts fitted so far, what they decode to, and the error of their sum."""

    def __init__(self, parts: tuple[Scheme, ...], weight: np.ndarray, context: FitContext) -> None:
        self.parts, self.context, self.dtype = parts, context, weight.dtype
        self.values = weight.astype(np.float32)
        self.decoded: list[np.ndarray | None] = [None] * len(parts)
        previous = context.previous
        known = previous.parts if isinstance(previous, SumParameters) else ()
        matches = len(known) == len(parts)
        self.starts: list[Parameters | None] = list(known) if matches else [None] * len(parts)
        self.fitted: list[Parameters | None] = [None] * len(parts)
        self.error = np.inf

    def round(self, order: Iterable[int]) -> None:
        """Fits each part once more, in the given order."""
        for index in order:
            others = self._sum([d for i, d in enumerate(self.decoded) if i != index])
            start = self.fitted[index] or self.starts[index]
            residual = (self.values - others).astype(self.dtype)
            fitted = self.parts[index].fit(residual, replace(self.context, previous=start))
            decoded = fitted.decode().astype(np.float32)
            trial = list(self.decoded)
            trial[index] = decoded
            error = self._error(self._sum(trial))
            if error < self.error:
                self.fitted[index], self.decoded[index], self.error = fitted, decoded, error

    def found(self) -> tuple[Parameters, ...]:
        """The parts that lower the error, in the order of the schemes."""
        return tuple(part for part in self.fitted if part is not None)

    def _sum(self, decoded: list[np.ndarray | None]) -> np.ndarray:
        total = np.zeros_like(self.values)
        for part in decoded:
            if part is not None:
                total += part
        return total

    def _error(self, total: np.ndarray) -> float:
        squares = (self.values - total.astype(self.dtype).astype(np.float32)) ** 2
        if self.context.importance is not None:
            squares = squares * self.context.importance
        return float(squares.sum(dtype=np.float64))
