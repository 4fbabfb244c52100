# SPDX-License-Identifier: Apache-2.0
"""Distinct values in ascending order with weights, and sums over runs of them in constant time."""

from __future__ import annotations

import numpy as np


class SortedValues:
    """What one-dimensional clustering sees: a cluster is a run of neighbours.

    Sums are kept from the middle outwards, so that outliers do not blur those of the others.

    Attributes:
        values: float64 [n], ascending, distinct.
        weights: float64 [n], positive.
    """

    def __init__(self, values: np.ndarray, weights: np.ndarray) -> None:
        self.values, self.weights = values, weights
        middle = 0
        if values.size:
            total = np.cumsum(weights)
            middle = int(np.searchsorted(total, total[-1] / 2))
        self._shift = float(values[middle]) if values.size else 0.0
        moved = values - self._shift
        self._sums = tuple(
            _from_middle(weights * moved**power, middle) for power in range(3)
        )  # of weight, weight * value, weight * value^2

    @property
    def size(self) -> int:
        """The number of distinct values."""
        return int(self.values.size)

    def without_zero(self) -> SortedValues:
        """The same but for the value 0."""
        others = self.values != 0
        return self if others.all() else SortedValues(self.values[others], self.weights[others])

    def weight(self, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Total weights of the runs [first, end)."""
        sums = self._sums[0]
        return np.asarray(sums[end] - sums[first])

    def means(self, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Weighted means of the runs [first, end), 0 for empty ones."""
        ones, values, _ = self._sums
        weight = ones[end] - ones[first]
        full = weight > 0
        means = (values[end] - values[first]) / np.where(full, weight, 1.0) + self._shift
        return np.asarray(np.where(full, means, 0.0))

    def errors(self, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Weighted squared errors of the runs [first, end) around their means."""
        ones, values, squares = (sums[end] - sums[first] for sums in self._sums)
        return np.asarray(np.maximum(squares - values**2 / np.where(ones > 0, ones, 1.0), 0.0))

    def errors_around(
        self, first: np.ndarray, end: np.ndarray, centres: np.ndarray | float
    ) -> np.ndarray:
        """Weighted squared errors of the runs [first, end) around ``centres``."""
        ones, values, squares = (sums[end] - sums[first] for sums in self._sums)
        moved = centres - self._shift
        return np.asarray(np.maximum(squares - 2 * moved * values + moved**2 * ones, 0.0))


def sorted_values(values: np.ndarray, weights: np.ndarray | None = None) -> SortedValues:
    """Groups equal ``values`` (1-D, float32): each weighs 1, or as ``weights`` [same size] say."""
    if weights is None:
        ordered = np.sort(values)
        sums = np.arange(values.size + 1, dtype=np.float64)
    else:
        order = np.argsort(values)
        ordered = values[order]
        sums = np.concatenate(([0.0], np.cumsum(weights[order], dtype=np.float64)))
    new = np.ones(values.size, bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    at = np.flatnonzero(new)
    edges = np.append(at, values.size)
    return SortedValues(ordered[at].astype(np.float64) + 0.0, np.diff(sums[edges]))


def merged(data: SortedValues, cells: int) -> SortedValues:
    """At most about ``cells`` runs of values, each merged into its mean.

    Cells end where either of two divisions does: into ``cells`` / 2 equal lengths, and into as many
    equal weights. Negative, zero and positive values are never merged with each other.
    """
    half = max(cells // 2, 1)
    values = data.values
    lengths = np.linspace(values[0], values[-1], half + 1)[1:-1]
    total = np.cumsum(data.weights)
    quantiles = np.searchsorted(total, total[-1] * np.arange(1, half) / half)
    zero = np.searchsorted(values, 0.0), np.searchsorted(values, 0.0, side="right")
    inner = np.concatenate((np.searchsorted(values, lengths), quantiles, zero))
    edges = np.unique(np.concatenate(([0], inner, [data.size])))
    first, end = edges[:-1], edges[1:]
    means = data.means(first, end)
    if zero[0] < zero[1]:
        means[np.searchsorted(edges, zero[0])] = 0.0
    return SortedValues(means, data.weight(first, end))


def _from_middle(terms: np.ndarray, middle: int) -> np.ndarray:
    """Sums [n + 1] such that sums[j] - sums[i] is that of terms[i:j], and sums[middle] is 0."""
    sums = np.zeros(terms.size + 1)
    np.cumsum(terms[middle:], out=sums[middle + 1 :])
    sums[:middle] = -np.cumsum(terms[:middle][::-1])[::-1]
    return sums
