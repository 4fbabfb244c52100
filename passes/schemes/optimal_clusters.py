# SPDX-License-Identifier: Apache-2.0
"""The optimum of k-means in one dimension by dynamic programming.

Wang and Song 2011, "Ckmeans.1d.dp", with the divide and conquer of Gronlund et al. 2017, "Fast
exact k-means, k-medians and Bregman divergence clustering in 1D", section 2.2: O(k n log n) for n
distinct values, level by level over arrays.
"""

from __future__ import annotations

import numpy as np

from passes.schemes.lloyd import lloyd
from passes.schemes.sorted_values import SortedValues, merged

CELLS = 4096
"""Distinct values up to which the optimum is exact."""


def optimal_centroids(
    data: SortedValues, count: int, *, fix_zero: bool = False, cells: int = CELLS
) -> np.ndarray:
    """At most ``count`` centroids, ascending, of the least weighted squared error.

    Args:
        data: The values.
        count: At least 1.
        fix_zero: One of the centroids is 0.
        cells: With more distinct values than this, runs of them (``merged``) are merged into their
            means, of which the optimum is found and then improved on all values by Lloyd's
            iterations. With E the least error and W the error of the merging (sum of weight *
            (value - mean of its cell)^2), the error is at most (sqrt(E) + sqrt(W))^2 + W: the
            optimum's own assignment costs the means at most the first term, and a cell costs W more
            than its mean.
    """
    if data.size <= cells:
        return _optimum(data, count, fix_zero)
    found = _optimum(merged(data, cells), count, fix_zero)
    start = found[found != 0] if fix_zero else found
    return lloyd(data, start, 100, fix_zero)[0]


def _optimum(data: SortedValues, count: int, fix_zero: bool) -> np.ndarray:
    if not fix_zero:
        _, choices = _layers(data, count)
        return _means(data, _edges(choices, count, data.size))
    below = SortedValues(data.values[data.values < 0], data.weights[data.values < 0])
    positive = data.values > 0  # mirrored, so that zero is at the end of both
    above = SortedValues(-data.values[positive][::-1], data.weights[positive][::-1])
    sides = [(side, *_layers(side, count - 1)) for side in (below, above)]
    rests, ends = [], []  # by number of centroids: least error with zero's share, where it begins
    for side, errors, _ in sides:
        first = np.arange(side.size + 1)
        totals = errors + side.errors_around(first, np.full_like(first, side.size), 0.0)
        ends.append(totals.argmin(axis=1))
        rests.append(totals.min(axis=1))
    number = int(np.argmin(rests[0] + rests[1][::-1]))
    parts = []
    for (side, _, choices), end, used in zip(
        sides, ends, (number, count - 1 - number), strict=True
    ):
        parts.append(_means(side, _edges(choices, used, int(end[used]))))
    return np.sort(np.concatenate((parts[0], [0.0], -parts[1])))


def _layers(data: SortedValues, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Least errors [count + 1, n + 1] of the first j values in at most m clusters, and where the
    last of these begins."""
    size = data.size
    errors = np.full((count + 1, size + 1), np.inf)
    choices = np.zeros((count + 1, size + 1), np.int32)
    errors[:, 0] = 0.0
    ends = np.arange(size + 1)
    for layer in range(1, count + 1):
        if layer == 1:
            errors[1] = data.errors(np.zeros_like(ends), ends)
        else:
            _next_layer(data, errors[layer - 1], errors[layer], choices[layer])
    return errors, choices


def _next_layer(
    data: SortedValues, previous: np.ndarray, errors: np.ndarray, choices: np.ndarray
) -> None:
    """Fills errors[j] = min over i <= j of previous[i] + error of [i, j), and the least such i.

    That i grows with j: odd multiples of a step lie between those of twice the step, which bound
    them.
    """
    size = data.size
    step = 1 << max(size.bit_length() - 1, 0)
    errors[0], choices[0] = 0.0, 0
    while step and size:
        at = np.arange(step, size + 1, 2 * step)
        lower = choices[at - step].astype(np.int64)
        behind = at + step
        upper = np.where(behind <= size, choices[np.minimum(behind, size)], at)
        upper = np.minimum(upper, at)
        lengths = upper - lower + 1
        starts = np.cumsum(lengths) - lengths
        begin = np.arange(int(lengths.sum())) - np.repeat(starts - lower, lengths)
        totals = previous[begin] + data.errors(begin, np.repeat(at, lengths))
        least = np.minimum.reduceat(totals, starts)
        begin[totals > np.repeat(least, lengths)] = size + 1
        errors[at], choices[at] = least, np.minimum.reduceat(begin, starts)
        step //= 2


def _edges(choices: np.ndarray, count: int, end: int) -> np.ndarray:
    """Ends of ``count`` clusters of the first ``end`` values, ascending, after a first 0."""
    edges = [end]
    for layer in range(count, 0, -1):
        edges.append(int(choices[layer, edges[-1]]))
    return np.array(edges[::-1])


def _means(data: SortedValues, edges: np.ndarray) -> np.ndarray:
    """Means of the clusters that are not empty."""
    edges = np.unique(edges)
    return data.means(edges[:-1], edges[1:])
