# SPDX-License-Identifier: Apache-2.0
"""Codebook quantisation: one-dimensional k-means over the values of a tensor, or of several.

Shared values as in Han, Mao, Dally 2016, "Deep Compression", section 3; as a compression step of LC
in Carreira-Perpinan and Idelbayev 2017, "Part II: quantization", section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext
from passes.schemes.codebook_parameters import CodebookParameters, assigned
from passes.schemes.lloyd import Start, lloyd, start_of
from passes.schemes.optimal_clusters import optimal_centroids
from passes.schemes.rate_distortion import error_weights
from passes.schemes.sorted_values import SortedValues, sorted_values
from passes.schemes.weight_values import finite_float32, importance_of, mask_of

_MAX_ENTRIES = 1024


@dataclass(frozen=True)
class Codebook:
    """k-means: at most ``entries`` values, each the mean of the elements that it stands for.

    Squared errors count as often as the context's importance says, times the mean square of what
    each element is multiplied with where moments are known. Where elements are pruned (the
    context's mask), 0 is one of the entries. Idempotent: few distinct values become the codebook.

    Attributes:
        entries: 1 to 1024.
        start: How Lloyd's iterations start, unless the context has previous parameters; None for
            the optimum by dynamic programming instead (passes.schemes.optimal_clusters, which says
            how exact it is).
        iterations: Of Lloyd, at most.
        fix_zeros: One of the entries is exactly 0, even if nothing is pruned.
    """

    entries: int = 16
    start: Start | None = None
    iterations: int = 100
    fix_zeros: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.entries <= _MAX_ENTRIES:
            raise SchemeError(f"codebook: entries must be 1 to {_MAX_ENTRIES}, not {self.entries}")
        if self.start is not None and self.start not in get_args(Start):
            known = ", ".join(get_args(Start))
            raise SchemeError(f"codebook: start must be one of {known}, not {self.start!r}")
        if self.iterations < 1:
            raise SchemeError(f"codebook: iterations must be at least 1, not {self.iterations}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> CodebookParameters:
        """Fits a float array of any shape.

        Raises SchemeError for an empty array, NaN or infinity.
        """
        context = context or FitContext()
        centroids = self._centroids({"": weight}, {"": context})
        return assigned(CodebookParameters, weight, centroids, mask_of(weight, context))

    def fit_joint(
        self, weights: Mapping[str, np.ndarray], contexts: Mapping[str, FitContext] | None = None
    ) -> dict[str, CodebookParameters]:
        """One codebook for several weights, each of any shape, by name.

        ``codebook`` is equal in all parameters of the same type, so that a file holds it once.
        Seed and previous parameters are those of the first weight's context.
        """
        if not weights:
            raise SchemeError("codebook: no weights to fit jointly")
        given = contexts or {}
        known = {name: given.get(name, FitContext()) for name in weights}
        centroids = self._centroids(weights, known)
        return {
            name: assigned(
                CodebookParameters,
                weight,
                centroids,
                mask_of(weight, known[name]),
                keep_unused=True,
            )
            for name, weight in weights.items()
        }

    def _centroids(
        self, weights: Mapping[str, np.ndarray], contexts: Mapping[str, FitContext]
    ) -> np.ndarray:
        """Centroids of all values that are kept, at least one."""
        masks = {name: mask_of(weight, contexts[name]) for name, weight in weights.items()}
        fix_zero = self.fix_zeros or any(mask is not None for mask in masks.values())
        data = _gathered(weights, contexts, masks)
        distinct = data.values
        if fix_zero:
            distinct = np.union1d(distinct, [0.0])
        if distinct.size <= self.entries:
            return distinct
        free = self.entries - fix_zero
        if free == 0:
            return np.zeros(1)
        if self.start is None:
            return optimal_centroids(data, self.entries, fix_zero=fix_zero)
        first = next(iter(contexts.values()))
        if isinstance(first.previous, CodebookParameters):
            start = _warm_start(first.previous, free, fix_zero)
        else:
            nonzero = data.without_zero() if fix_zero else data
            start = start_of(self.start, nonzero, free, first.seed)
        return lloyd(data, start, self.iterations, fix_zero)[0]


def _gathered(
    weights: Mapping[str, np.ndarray],
    contexts: Mapping[str, FitContext],
    masks: Mapping[str, np.ndarray | None],
) -> SortedValues:
    """The kept values of all weights, with their importance where any context has one."""
    weighted = any(
        context.importance is not None or context.moments is not None
        for context in contexts.values()
    )
    values, counts = [], []
    for name, weight in weights.items():
        mask, importance = masks[name], _importance(weight, contexts[name])
        kept = slice(None) if mask is None else mask.reshape(-1)
        values.append(finite_float32(weight).reshape(-1)[kept])
        if weighted:
            full = np.ones(weight.shape) if importance is None else importance
            counts.append(full.reshape(-1)[kept])
    joined = values[0] if len(values) == 1 else np.concatenate(values)
    return sorted_values(joined, np.concatenate(counts) if weighted else None)


def _importance(weight: np.ndarray, context: FitContext) -> np.ndarray | None:
    """How much each squared error counts: by the context's importance and moments."""
    if context.moments is None:
        return importance_of(weight, context)
    return np.broadcast_to(error_weights(weight, context), weight.shape)


def _warm_start(previous: CodebookParameters, count: int, fix_zero: bool) -> np.ndarray:
    """``count`` centroids from those of an earlier fit: the last one again (Lloyd's iterations move
    empty clusters), or a regular choice of them."""
    book = previous.codebook.astype(np.float64)
    if fix_zero:
        book = book[book != 0]
    if book.size == 0:
        return np.zeros(count)
    if book.size < count:
        return np.pad(book, (0, count - book.size), mode="edge")
    return book[np.linspace(0, book.size - 1, count).round().astype(np.int64)]
