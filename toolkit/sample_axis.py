# SPDX-License-Identifier: Apache-2.0
"""Whether the first axis of a model's inputs is one of samples, so that batches may be divided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.flat_outputs import flatten

SAME_DB = 30.0
"""Outputs of a batch and of its parts are at least so alike; activations quantised with a scale
that follows the batch may differ by less."""
EQUAL_DB = 80.0
"""Outputs that no row changes are at least so alike."""

Array = npt.NDArray[Any]


def rows_are_samples(
    run: Callable[[Feed], Mapping[str, Any]], whole: Feed, parts: Sequence[Feed]
) -> bool:
    """Whether the outputs of `whole` are those of its `parts`, rows of its arrays, put together
    again. They are not where rows are the steps of one sequence. What differs from run to run does
    not count, nor do sequences of arrays."""
    try:
        outputs = [run(feed) for feed in (whole, whole, *parts)]
    except Exception:  # onnxruntime raises many kinds: of few rows the model makes nothing
        return False
    expected, again, *found = (flatten(values) for values in outputs)
    return all(
        all(name in run for run in found) and _is_joined(value, [run[name] for run in found])
        for name, value in expected.items()
        if name in outputs[0] and _is_alike(value, again.get(name, value), SAME_DB)
    )


def _is_joined(whole: Array, parts: Sequence[Array]) -> bool:
    if any(part.ndim != whole.ndim for part in parts):
        return False
    if all(_is_alike(whole, part, EQUAL_DB) for part in parts):
        return True  # it depends on no row
    for axis, size in enumerate(whole.shape):
        others = [(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts]
        if sum(part.shape[axis] for part in parts) == size and len(set(others)) == 1:
            return _is_alike(whole, np.concatenate(parts, axis), SAME_DB)
    return False


def _is_alike(first: Array, second: Array, least_db: float) -> bool:
    if first.shape != second.shape:
        return False
    if first.dtype.kind not in "fc":
        return not first.size or bool(np.mean(first == second) > 0.9)
    one, other = (np.nan_to_num(array.astype(np.float64)) for array in (first, second))
    noise, energy = float(np.square(one - other).sum()), float(np.square(one).sum())
    return noise <= 10 ** (-least_db / 10) * energy
