# SPDX-License-Identifier: Apache-2.0
"""Projections and proximal maps of pruning, on a vector of magnitudes.

The magnitudes are absolute values of weights or Euclidean norms of groups, so that each map serves
single weights and groups alike: the smaller magnitude scales its group down. Solutions for weighted
squared errors follow from the same conditions of optimality.

Sources: Carreira-Perpiñán and Idelbayev 2018, "Learning-Compression algorithms for neural net
pruning", section 3 (l0 and l1, constraint and penalty); Duchi et al. 2008, "Efficient projections
onto the l1-ball for learning in high dimensions", Fig. 1 (projection by sorting); Yuan and Lin
2006, "Model selection and estimation in regression with grouped variables", section 2 (groups).
"""

from __future__ import annotations

import numpy as np


def largest(scores: np.ndarray, number: int) -> np.ndarray:
    """Marks the ``number`` largest of ``scores`` (1-D); of equal ones the first.

    Returns bool, the shape of ``scores``; all of them where ``number`` reaches their count.
    """
    if number >= scores.size:
        return np.ones(scores.size, bool)
    if number <= 0:
        return np.zeros(scores.size, bool)
    bound = np.partition(scores, scores.size - number)[scores.size - number]
    chosen = scores > bound
    equal = np.flatnonzero(scores == bound)
    chosen[equal[: number - int(np.count_nonzero(chosen))]] = True
    return np.asarray(chosen)


def largest_of_each(scores: np.ndarray, number: int, length: int) -> np.ndarray:
    """Marks the ``number`` largest of each ``length`` neighbours along the last axis.

    A rest shorter than ``length`` at the end of the axis is a group too. Of equal scores the first
    are marked. Returns bool, the shape of ``scores``.
    """
    rows, columns = scores.reshape(-1, scores.shape[-1]), scores.shape[-1]
    length = min(length, max(columns, 1))
    groups = -(-columns // length)
    padded = np.full((rows.shape[0], groups * length), -np.inf)
    padded[:, :columns] = rows
    order = np.argsort(-padded.reshape(-1, length), axis=-1, kind="stable")[:, :number]
    chosen = np.zeros((order.shape[0], length), bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen.reshape(rows.shape[0], -1)[:, :columns].reshape(scores.shape)


def hard_threshold(magnitudes: np.ndarray, penalty: float, mu: float) -> np.ndarray:
    """Marks what min over x of penalty * [x != 0] + mu/2 (m - x)^2 keeps: m > sqrt(2 penalty / mu).

    With ``mu`` 0, where the squared error counts nothing, everything is kept: LC starts there, and
    a weight of zeros is no start.

    Args:
        magnitudes: float64, not negative; with weighted errors the square roots of their sums.
        penalty: Not negative.
        mu: Not negative.
    """
    if mu <= 0:
        return np.ones(magnitudes.shape, bool)
    return np.asarray(magnitudes > np.sqrt(2.0 * penalty / mu))


def soft_threshold(
    magnitudes: np.ndarray, penalty: float, mu: float, importance: np.ndarray | float = 1.0
) -> np.ndarray:
    """The x of min penalty * x + mu/2 importance (m - x)^2: m - penalty / (mu importance) or 0.

    With ``mu`` 0 the magnitudes themselves, as in `hard_threshold`.
    """
    if mu <= 0:
        return magnitudes.copy()
    return np.maximum(magnitudes - penalty / (mu * importance), 0.0)


def l1_ball(
    magnitudes: np.ndarray, radius: float, importance: np.ndarray | float = 1.0
) -> np.ndarray:
    """The x nearest to ``magnitudes`` with sum(x) <= ``radius`` and x >= 0, exact.

    x = max(m - t / importance, 0). The breakpoints of t, at which an x reaches 0, are sorted; t is
    where the sum, linear between two of them, meets the radius.

    Args:
        magnitudes: float64 [n], not negative.
        radius: Not negative.
        importance: Positive weights of the squared errors, [n] or a number.

    Returns:
        float64 [n]; ``magnitudes`` where they are inside of the ball already.
    """
    if magnitudes.sum() <= radius:
        return magnitudes.copy()
    weights = np.broadcast_to(np.asarray(importance, np.float64), magnitudes.shape)
    breakpoints = magnitudes * weights
    order = np.argsort(-breakpoints, kind="stable")
    shifts = (np.cumsum(magnitudes[order]) - radius) / np.cumsum(1.0 / weights[order])
    positive = np.flatnonzero(breakpoints[order] > shifts)
    shift = shifts[positive[-1]] if positive.size else breakpoints.max()
    return np.asarray(np.maximum(magnitudes - shift / weights, 0.0))
