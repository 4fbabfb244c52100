# SPDX-License-Identifier: Apache-2.0
"""Metrics that count: on few samples they cannot tell the loss that is allowed from none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.metrics import Score
from toolkit.targets import Target
from toolkit.task_metrics import BoundMetric


def coarse_metric_notes(
    target: Target, score: Score | None, runs: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What is to be said where one result alone is more than `target` allows to lose. `runs` are
    the original's outputs on what has the last word, `score` the metric there; `target` knows its
    baseline."""
    if target.kind == "min_agreement":
        count, allowed, what = _winners(runs), 1.0 - target.value, "agreement"
    elif target.kind == "max_drop" and isinstance(score, BoundMetric) and score.text == "top1":
        count, allowed, what = sum(part.size for part in score.labels), target.value, "top1"
    else:
        return []
    if not count or allowed <= 0 or count * allowed >= 1:
        return []
    return [
        f"{what} is measured on {count} results: one of them is {1 / count:.2g}, more than the "
        f"{allowed:.2g} that may be lost, so other data may lose more; more calibration data "
        "would tell"
    ]


def _winners(runs: Sequence[Mapping[str, Any]]) -> int:
    """How many winners of the last axis the output with the fewest has."""
    counts: dict[str, int] = {}
    for run in runs:
        for name, value in run.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim:
                counts[name] = counts.get(name, 0) + value.size // max(value.shape[-1], 1)
    return min(counts.values(), default=0)
