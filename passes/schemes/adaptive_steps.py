# SPDX-License-Identifier: Apache-2.0
"""One step for each index of an axis, finer where errors count more.

At high rate a step of s costs importance * s^2 / 12 and -log2 s bits, so that steps in proportion
to importance^(-1/2) are optimal (reverse water-filling: T. Cover, J. Thomas, "Elements of
Information Theory", section 10.3.3).
"""

from __future__ import annotations

import numpy as np

from passes.schemes.scaling import representable_scale

_PER_OCTAVE = 4
"""Steps are of a geometric grid, so that few numbers need to be stored."""
_LEAST_GAIN = 0.01
"""Bits per element that steps of an axis must be worth."""
_MOST = 2**15 - 1
_OCTAVES = 6.0
"""From the finest step to the coarsest."""


def adaptive_steps(
    importance: np.ndarray, step: float, dtype: np.dtype
) -> tuple[np.ndarray, int | None]:
    """Steps along the axis where they gain most.

    Args:
        importance: Positive, of the weight's rank, 1 along axes where it does not vary: of squared
            errors.
        step: The one step for all that would cost as much in the mean.
        dtype: The weight's.

    Returns:
        float32 [shape[axis]] and the axis; [] and None where it would gain next to nothing.
    """
    best, axis, levels = _LEAST_GAIN, None, np.zeros(1)
    for candidate in range(importance.ndim):
        if importance.shape[candidate] < 2:
            continue
        others = tuple(i for i in range(importance.ndim) if i != candidate)
        weights = importance.mean(others, dtype=np.float64)
        found = np.log2(np.maximum(weights, np.finfo(float).tiny))
        gain = 0.5 * float(np.log2(max(weights.mean(), 1e-300)) - found.mean())
        if gain > best:
            best, axis, levels = gain, candidate, found
    if axis is None:
        return representable_scale(np.asarray(step, np.float64), dtype), None
    level = np.maximum(levels, levels.max() - 2 * _OCTAVES)
    relative = np.rint(-0.5 * (level - level.max()) * _PER_OCTAVE) / _PER_OCTAVE
    power = np.exp2(2 * relative + levels)
    base = step * np.sqrt(np.exp2(levels).mean() / power.mean())
    return representable_scale(base * np.exp2(relative), dtype), axis


def steps_in_range(
    values: np.ndarray, importance: np.ndarray, step: float, dtype: np.dtype
) -> tuple[np.ndarray, int | None]:
    """The same, but one step for all where finer ones would need symbols of more than 16 bits for
    ``values``, float32 of the weight's rank."""
    scale, axis = adaptive_steps(importance, step, dtype)
    if axis is not None:
        others = tuple(i for i in range(values.ndim) if i != axis)
        if float((np.abs(values).max(others) / scale).max()) > _MOST:
            return representable_scale(np.asarray(step, np.float64), dtype), None
    return scale, axis
