# SPDX-License-Identifier: Apache-2.0
"""Rate and distortion of one weight as functions of its quantisation step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_SAMPLES = 65_536
GRID = np.arange(-10.0, 2.51, 0.5)
"""log2 of step / RMS at which curves are measured: from about 10 bits a weight to below 0.5."""

FINE = np.arange(GRID[0], GRID[-1] + 1e-9, 1 / 16)
"""log2 of step / RMS at which curves are interpolated."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RateCurve:
    """`bits` per weight (zeroth-order entropy) and `mse` (mean squared error relative to the mean
    square of the weights), both float64 [len(FINE)]. `rms` of the weights, `size` their number,
    `peak` the largest magnitude."""

    rms: float
    peak: float
    size: int
    bits: Array
    mse: Array

    def bits_at(self, step: float) -> float:
        """Bits per weight at an absolute step."""
        position = np.log2(step / self.rms) if self.rms else GRID[-1]
        inside = float(np.interp(position, FINE, self.bits))
        return inside + max(0.0, float(GRID[0] - position))

    def mse_at(self, step: float) -> float:
        """Relative mean squared error at an absolute step."""
        position = np.log2(step / self.rms) if self.rms else GRID[-1]
        inside = float(np.exp2(np.interp(position, FINE, np.log2(self.mse))))
        return float(inside * 4.0 ** min(0.0, float(position - GRID[0])))


def rate_curve(values: npt.NDArray[Any]) -> RateCurve:
    """Measures the curve of one weight, on at most 65,536 of its values, evenly spread."""
    flat = values.reshape(-1)
    energy = 0.0
    for start in range(0, flat.size, MAX_SAMPLES):  # a float64 copy of all would be large
        part = flat[start : start + MAX_SAMPLES].astype(np.float64)
        energy += float(np.vdot(part, part))
    rms = float(np.sqrt(energy / max(flat.size, 1)))
    peak = float(max(flat.max(initial=0), -flat.min(initial=0)))
    stride = max(1, flat.size // MAX_SAMPLES) | 1
    sample = flat[::stride].astype(np.float64)
    scale = np.sqrt(np.mean(np.square(sample))) if sample.size else 0.0
    sample = sample / scale if scale else sample
    bits, mse = np.empty(GRID.size), np.empty(GRID.size)
    for index, position in enumerate(GRID):
        step = 2.0**position
        symbols = np.rint(sample / step)
        mse[index] = np.mean(np.square(sample - symbols * step)) if sample.size else 0.0
        whole = symbols.astype(np.int64)
        counts = np.bincount(whole - whole.min()) if whole.size else np.zeros(1)
        shares = counts[counts > 0] / max(whole.size, 1)
        bits[index] = -float(np.sum(shares * np.log2(shares))) if shares.size else 0.0
    log_mse = np.log2(np.maximum(mse, 1e-30))
    return RateCurve(
        rms,
        peak,
        int(flat.size),
        np.interp(FINE, GRID, bits),
        np.exp2(np.interp(FINE, GRID, log_mse)),
    )
