# SPDX-License-Identifier: Apache-2.0
"""Judging each slice of an output on its own: channels (axis 1) and positions of the last axis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SLICE_FLOOR_DB = 3.0
"""Least SQNR of a slice that carried signal: its noise stays below half of its energy."""

MAX_SLICES = 65_536
"""Axes longer than this are not taken apart: their entries are samples rather than channels."""

QUIET = 1e-3
"""A slice carries signal when its RMS is at least this share of the median slice's RMS ..."""

FEW_VALUES, QUIET_OF_FEW = 64, 0.1
"""... or this share, where it has fewer values than that: a unit of a recurrent state is seen once
in each run, and noise that is the same for all units drowns one that hardly speaks ..."""

SILENT = 1e-12
"""... and at least this much at all."""

PROBABILITY_PEAK = 0.1
"""In an output of probabilities a slice carries signal when it rises to at least this value."""

Array = npt.NDArray[np.float64]


@dataclass
class SliceFidelity:
    """One slice `output[axis=index]` over all feeds. `rms` is of the original's values."""

    output: str
    axis: int
    index: int
    sqnr_db: float
    rms: float
    judged: bool
    dead: bool

    @property
    def label(self) -> str:
        """The slice in words, e.g. `scores[axis 1, 17]`."""
        return f"{self.output}[axis {self.axis}, {self.index}]"


def decibel(signal: float, noise: float) -> float:
    """10 log10(signal / noise): `inf` without noise, `-inf` for noise on no signal."""
    if noise <= 0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0 else -math.inf


@dataclass
class _AxisSums:
    signal: Array
    noise: Array
    found: Array
    peak: Array
    count: int = 0


@dataclass
class SliceSums:
    """Energies of every slice along axis 1 and the last axis, summed over feeds."""

    axes: dict[int, _AxisSums] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    low: float = 0.0
    high: float = 0.0

    def add(self, original: Array, found: Array) -> None:
        """Adds one run: float64 arrays of one shape. An axis that changes its length from feed to
        feed is not judged: its entries are samples."""
        self.low = min(self.low, float(original.min(initial=0.0)))
        self.high = max(self.high, float(original.max(initial=0.0)))
        for axis in {min(1, original.ndim - 1), original.ndim - 1} - self.skipped:
            if axis < 1 or not 2 <= original.shape[axis] <= MAX_SLICES:
                continue
            others = tuple(i for i in range(original.ndim) if i != axis)
            square = np.square(original)
            signal, peak = square.sum(others), square.max(others, initial=0.0)
            noise = np.square(found - original).sum(others)
            sums = self.axes.get(axis)
            if sums is None:
                length = original.shape[axis]
                sums = _AxisSums(
                    np.zeros(length), np.zeros(length), np.zeros(length), np.zeros(length)
                )
                self.axes[axis] = sums
            if sums.signal.shape != signal.shape:
                self.skipped.add(axis)
                del self.axes[axis]
                continue
            sums.signal += signal
            sums.noise += noise
            sums.found += np.square(found).sum(others)
            sums.peak = np.maximum(sums.peak, peak)
            sums.count += original.size // max(original.shape[axis], 1)

    def judge(self, output: str) -> list[SliceFidelity]:
        """All slices with noise, each with its verdict."""
        verdicts: list[SliceFidelity] = []
        probabilities = self.low >= 0.0 and 0.0 < self.high <= 1.0 + 1e-6
        for axis, sums in sorted(self.axes.items()):
            rms = np.sqrt(sums.signal / max(sums.count, 1))
            carrying = rms[rms > SILENT]
            quiet = QUIET if sums.count >= FEW_VALUES else QUIET_OF_FEW
            floor = max(SILENT, quiet * float(np.median(carrying))) if carrying.size else math.inf
            judged = rms >= floor
            if probabilities:
                judged &= np.sqrt(sums.peak) >= PROBABILITY_PEAK
            for index in np.flatnonzero(sums.noise > 0):
                ratio = decibel(float(sums.signal[index]), float(sums.noise[index]))
                counts = bool(judged[index])
                verdicts.append(
                    SliceFidelity(
                        output,
                        axis,
                        int(index),
                        ratio,
                        float(rms[index]),
                        counts,
                        counts and ratio < SLICE_FLOOR_DB,
                    )
                )
        return verdicts


def worst_slices(verdicts: list[SliceFidelity], count: int = 5) -> list[SliceFidelity]:
    """The `count` judged slices with the lowest SQNR, worst first."""
    return sorted((v for v in verdicts if v.judged), key=lambda v: v.sqnr_db)[:count]
