# SPDX-License-Identifier: Apache-2.0
"""Sparsities of several weights for a given total, from how sensitive each one is.

Sensitivity is measured one weight at a time, as in Han et al. 2015, "Learning both weights and
connections for efficient neural networks", section 4.3 and Fig. 6, and errors are taken to add up.
The best division then follows the lower convex hulls of the curves, least steep pieces first
(Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from passes.errors import SchemeError


def sparsities_for_total(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    sizes: Mapping[str, int],
    total: float,
) -> dict[str, float]:
    """The sparsity of each weight such that together at least the share ``total`` is pruned.

    Minimises the sum of errors over the lower convex hulls of the curves, exactly; between two
    points of a hull the error is interpolated, so that the total is met; it is exceeded only where
    pruning lowers the error. Of equally steep pieces the one of the first name comes first.

    Args:
        curves: name -> points (sparsity from 0 to 1, error), in any order; where no point has
            sparsity 0, one of error 0 is added.
        sizes: name -> number of elements.
        total: The share of all elements to prune, 0 to 1.

    Returns:
        name -> sparsity, in the order of ``curves``; none for no curves.

    Raises:
        SchemeError: a name without a size, a sparsity outside of 0 to 1, an error that is not
            finite, or a total that the curves' largest sparsities do not reach.
    """
    if not 0 <= total <= 1:
        raise SchemeError(f"sparsity: the total must be 0 to 1, not {total}")
    missing = [name for name in curves if name not in sizes]
    if missing:
        raise SchemeError(f"sparsity: {missing[0]!r} has a curve but no size")
    hulls = {name: _lower_hull(name, curves[name]) for name in curves}
    wanted = total * sum(sizes[name] for name in curves)
    reach = sum(sizes[name] * hull[-1][0] for name, hull in hulls.items())
    if wanted > reach * (1 + 1e-12):
        raise SchemeError(
            f"sparsity: {total:.4g} of all elements is asked for, the curves reach "
            f"{reach / sum(sizes[name] for name in curves):.4g}"
        )
    pieces = []
    for name in sorted(hulls):
        hull = hulls[name]
        for place, (start, end) in enumerate(zip(hull, hull[1:], strict=False)):
            amount = sizes[name] * (end[0] - start[0])
            if amount > 0:
                pieces.append(((end[1] - start[1]) / amount, name, place, amount))
    found = {name: hull[0][0] for name, hull in hulls.items()}
    left = wanted - sum(sizes[name] * found[name] for name in found)
    for slope, name, _, amount in sorted(pieces):
        if left <= 0 and slope >= 0:
            break
        taken = amount if slope < 0 else min(amount, left)
        found[name] += taken / sizes[name]
        left -= taken
    return {name: min(value, 1.0) for name, value in found.items()}


def _lower_hull(name: str, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lower convex hull from sparsity 0 on (Andrew's monotone chain)."""
    array = np.array(list(points), np.float64).reshape(-1, 2)
    if not np.isfinite(array).all() or (array[:, 0] < 0).any() or (array[:, 0] > 1).any():
        raise SchemeError(f"sparsity: the curve of {name!r} leaves 0 to 1 or is not finite")
    best: dict[float, float] = {}
    for sparsity, error in array.tolist():
        best[sparsity] = min(error, best.get(sparsity, np.inf))
    best.setdefault(0.0, 0.0)
    hull: list[tuple[float, float]] = []
    for point in sorted(best.items()):
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _is_above(
    first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]
) -> bool:
    """Whether the middle point lies on or above the line through the others."""
    rise = (last[1] - first[1]) * (middle[0] - first[0])
    return (middle[1] - first[1]) * (last[0] - first[0]) >= rise
