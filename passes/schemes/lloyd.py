# SPDX-License-Identifier: Apache-2.0
"""k-means in one dimension by Lloyd's iterations, and where they start.

k-means++: Arthur and Vassilvitskii 2007, section 2.2. Linear, density (quantiles) and random: Han,
Mao, Dally 2016, "Deep Compression", section 3.2. Clusters are runs of the sorted values, so that an
iteration takes O(k log n).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from passes.schemes.sorted_values import SortedValues

Start = Literal["k-means++", "random", "linear", "density"]

_SAMPLE = 1 << 14


def start_of(kind: Start, data: SortedValues, count: int, seed: int) -> np.ndarray:
    """``count`` centroids to start from, ascending; ``data`` has more distinct values."""
    generator = np.random.default_rng(seed)
    if kind == "linear":
        return np.linspace(data.values[0], data.values[-1], count)
    if kind == "density":
        return _quantiles(data, count)
    sample, weights = data.values, data.weights
    if data.size > _SAMPLE:
        sample, weights = _quantiles(data, _SAMPLE), np.ones(_SAMPLE)
    if kind == "random":
        chances = weights / weights.sum()
        return np.sort(generator.choice(sample, count, replace=False, p=chances))
    return _plus_plus(sample, weights, count, generator)


def lloyd(
    data: SortedValues, start: np.ndarray, iterations: int, fix_zero: bool = False
) -> tuple[np.ndarray, float]:
    """Lloyd's iterations: centroids, ascending, and their weighted squared error.

    An empty cluster is moved into the cluster of the largest squared error, which so is split in
    two. With ``fix_zero`` one more centroid is 0 and stays there; it is among those returned.
    """
    centroids = np.sort(np.append(start, 0.0) if fix_zero else start)
    best, least = centroids, np.inf
    for _ in range(max(iterations, 1)):
        zero = int(np.searchsorted(centroids, 0.0)) if fix_zero else -1
        cuts = np.searchsorted(data.values, (centroids[1:] + centroids[:-1]) / 2, side="right")
        edges = np.concatenate(([0], cuts, [data.size]))
        first, end = edges[:-1], edges[1:]
        empty = first == end
        updated = np.where(empty, centroids, data.means(first, end))
        errors = data.errors(first, end)
        if fix_zero:
            updated[zero] = 0.0
            errors[zero] = float(data.errors_around(first[zero], end[zero], 0.0))
            empty[zero] = False
        error, previous = float(errors.sum()), least
        if error < least:
            best, least = updated.copy(), error
        spare = np.flatnonzero(empty)
        if spare.size == 0 and previous - error <= 1e-6 * error:
            break
        for place, full in zip(spare, np.argsort(-errors), strict=False):
            if errors[full] > 0:
                updated[place] = (data.values[first[full]] + updated[full]) / 2
        centroids = np.sort(updated)
    return np.sort(best), least


def _quantiles(data: SortedValues, count: int) -> np.ndarray:
    """The values in the middles of ``count`` parts of equal weight."""
    total = np.cumsum(data.weights)
    wanted = total[-1] * (np.arange(count) + 0.5) / count
    return np.asarray(data.values[np.minimum(np.searchsorted(total, wanted), data.size - 1)])


def _plus_plus(
    sample: np.ndarray, weights: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Each next seed is drawn in proportion to its squared distance from the nearest one so far."""
    seeds = [sample[_drawn(weights, generator)]]
    distance = (sample - seeds[0]) ** 2
    while len(seeds) < count:
        chances = weights * distance
        if chances.max() <= 0:  # fewer distinct values in the sample than entries
            seeds.append(generator.uniform(sample[0], sample[-1]))
        else:
            seeds.append(sample[_drawn(chances, generator)])
        np.minimum(distance, (sample - seeds[-1]) ** 2, out=distance)
    return np.sort(np.array(seeds))


def _drawn(chances: np.ndarray, generator: np.random.Generator) -> int:
    total = np.cumsum(chances)
    drawn = np.searchsorted(total, generator.uniform(0, total[-1]), side="right")
    return min(int(drawn), chances.size - 1)
