# SPDX-License-Identifier: Apache-2.0
"""A quantiser step for each frequency by reverse water-filling (Cover and Thomas 2006, section
10.3.3).

Of independent components of variances v the least rate for a distortion spreads it evenly, D =
min(w, v) with one water level w; a component below the level is dropped. With sensitivities g,
which say how much the squared error of a frequency counts, D = min(w / g, v). A uniform quantiser
of step d has distortion d^2 / 12.
"""

from __future__ import annotations

import numpy as np


def water_level(variances: np.ndarray, rate: float) -> float:
    """The level at which components [F] of these variances take ``rate`` bits on average.

    By bisection of the rate, mean of max(0, log2(v / w) / 2), which falls as w rises. 0 where all
    variances are 0.
    """
    largest = float(variances.max(initial=0.0))
    if largest <= 0:
        return 0.0
    positive = variances[variances > 0]
    low, high = np.log2(largest) - 2 * rate * variances.size - 2, float(np.log2(largest))
    for _ in range(100):
        middle = (low + high) / 2
        found = np.maximum(0.0, (np.log2(positive) - middle) / 2).sum() / variances.size
        low, high = (middle, high) if found > rate else (low, middle)
    return float(2.0 ** ((low + high) / 2))


def water_filling(
    variances: np.ndarray,
    sensitivity: np.ndarray,
    *,
    step: float | None = None,
    rate: float | None = None,
) -> np.ndarray:
    """Steps of each frequency, 0 where it is dropped.

    Args:
        variances: float64 [F] of the coefficients.
        sensitivity: float64 [F], positive; only its ratios count.
        step: The step of a frequency of mean sensitivity.
        rate: Bits per coefficient, in place of ``step``.

    Returns:
        float64 [F].
    """
    weights = sensitivity / sensitivity.mean()
    level = step**2 / 12 if step is not None else water_level(variances * weights, rate or 0.0)
    if level <= 0:
        return np.zeros_like(variances)
    return np.where(variances * weights > level, np.sqrt(12 * level / weights), 0.0)
