# SPDX-License-Identifier: Apache-2.0
"""Turns outputs that are probabilities into the scores they came from.

A probability close to 0 or 1 hardly moves while the score behind it is ruined, so on inputs that a
classifier finds easy (or on made-up ones, for which it always gives the same answer) any damage
looks harmless. Logarithms show it, whatever the graph computes the probabilities with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ScoreKind = Literal["softmax", "sigmoid"]
Runs = Sequence[Mapping[str, Any]]

SMALLEST = 1e-9
"""Probabilities below are taken for this one: they are noise, or underflow."""

MOST_PER_ROW = 1e-3
"""How far a sum of probabilities may lie from 1."""


def score_kinds(runs: Runs) -> dict[str, ScoreKind]:
    """Names of the outputs that are probabilities in all runs, and what made them.

    "softmax": not negative, and sums of 1 along the last axis of two or more. "sigmoid": strictly
    between 0 and 1.
    """
    kinds: dict[str, ScoreKind] = {}
    for name in runs[0] if runs else ():
        values = [run[name] for run in runs]
        if not all(isinstance(v, np.ndarray) and v.dtype.kind == "f" and v.size for v in values):
            continue
        if all(_is_distribution(v) for v in values):
            kinds[name] = "softmax"
        elif all(bool(((v > 0) & (v < 1)).all()) for v in values):
            kinds[name] = "sigmoid"
    return kinds


def to_scores(runs: Runs, kinds: Mapping[str, ScoreKind]) -> list[dict[str, Any]]:
    """The runs with the outputs named in `kinds` as scores, float32 of the same shapes.

    Softmax: the logarithm less its mean along the last axis, which is what the classes' scores are
    but for a constant. Sigmoid: log p - log (1 - p).
    """
    return [
        {
            name: _score(value, kinds[name]) if name in kinds else value
            for name, value in run.items()
        }
        for run in runs
    ]


def _is_distribution(value: npt.NDArray[Any]) -> bool:
    if value.ndim == 0 or value.shape[-1] < 2 or not bool((value >= 0).all()):
        return False
    return bool((np.abs(value.sum(-1, dtype=np.float64) - 1) < MOST_PER_ROW).all())


def _score(value: Any, kind: ScoreKind) -> Any:
    if not isinstance(value, np.ndarray) or not np.isfinite(value).all():
        return value  # lost altogether: let the comparison say so
    p = np.clip(value.astype(np.float64), SMALLEST, 1.0)
    log = np.log(p)
    if kind == "softmax":
        return (log - log.mean(-1, keepdims=True)).astype(np.float32)
    return (log - np.log(np.maximum(1.0 - p, SMALLEST))).astype(np.float32)
