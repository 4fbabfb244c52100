# SPDX-License-Identifier: Apache-2.0
"""How much a group of weights matters: absolute value, L1 or L2 norm, random, or what is given.

Absolute values are those of Han et al. 2015, "Learning both weights and connections for efficient
neural networks", section 3; norms of filters those of Li et al. 2017, "Pruning filters for
efficient ConvNets", section 3.1; random order is the baseline that both are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from passes.errors import SchemeError
from passes.schemes.prune_groups import Groups

Importance = Literal["abs", "l1", "l2", "random"] | Callable[[np.ndarray], np.ndarray]
NAMES = ("abs", "l1", "l2", "random")


def scores_of(
    values: np.ndarray,
    groups: Groups,
    importance: Importance,
    weights: np.ndarray | None = None,
    seed: tuple[int, ...] = (0,),
) -> np.ndarray:
    """The score of each group, float64 [groups]; higher is more important.

    Args:
        values: float32, the weight.
        groups: Its groups.
        importance: ``abs`` and ``l1``: the sum of absolute values; ``l2``: the Euclidean norm;
            ``random``: uniform, drawn with ``seed``; a callable takes the weight and returns scores
            of its shape, which are summed in each group, or one score for each group.
        weights: Positive, broadcastable to the weight: of each squared error. They enter ``l1``
            and ``abs`` by their square root, so that of single elements the largest scores are
            those whose loss raises the weighted error most.

    Raises:
        SchemeError: a callable's scores have another shape or are not finite.
    """
    if callable(importance):
        return _called(values, groups, importance)
    if importance == "random":
        return np.random.default_rng(seed).random(groups.count)
    magnitudes = np.abs(values, dtype=np.float64)
    if weights is not None:
        magnitudes = magnitudes * np.sqrt(np.asarray(weights, np.float64))
    if importance == "l2":
        return np.asarray(np.sqrt(groups.sums(np.square(magnitudes))))
    return groups.sums(magnitudes)


def _called(
    values: np.ndarray, groups: Groups, importance: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    scores = np.asarray(importance(values), np.float64)
    if not np.isfinite(scores).all():
        raise SchemeError("prune: the importance function gave scores that are not finite")
    if scores.shape == values.shape:
        return groups.sums(scores)
    if scores.shape != (groups.count,):
        raise SchemeError(
            f"prune: the importance function gave scores of shape {scores.shape}, expected "
            f"{values.shape} or ({groups.count},)"
        )
    return scores
