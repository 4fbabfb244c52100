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
    """One slice `output[axis=index]` that carried signal, over all feeds; `rms` is the original's
    values."""

    output: str
    axis: int
    index: int
    sqnr_db: float
    rms: float
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
    peak: Array
    count: int = 0


@dataclass
class SliceSums:
    """Energies of every slice along axis 1 and the last axis, summed over feeds."""

    axes: dict[int, _AxisSums] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    low: float = 0.0
    high: float = 0.0

    def begin(self, shape: tuple[int, ...]) -> None:
        """Begins a run of that shape. An axis that changes its length from feed to feed is not
        judged: its entries are samples."""
        for axis in {min(1, len(shape) - 1), len(shape) - 1} - self.skipped:
            if axis < 1 or not 2 <= shape[axis] <= MAX_SLICES:
                continue
            length = shape[axis]
            nothing = np.zeros(length)
            sums = self.axes.setdefault(axis, _AxisSums(nothing, nothing.copy(), nothing.copy()))
            if sums.signal.size != length:
                self.skipped.add(axis)
                del self.axes[axis]
                continue
            sums.count += math.prod(shape) // length

    def add(self, place: tuple[slice, ...], values: Array, signal: Array, noise: Array) -> None:
        """Adds the block of a run that lies at `place`: the original's values, their squares, and
        those of the errors, float64."""
        self.low = min(self.low, float(values.min(initial=0.0)))
        self.high = max(self.high, float(values.max(initial=0.0)))
        for axis, sums in self.axes.items():
            part = place[axis] if axis < len(place) else slice(None)
            others = tuple(i for i in range(values.ndim) if i != axis)
            sums.signal[part] += signal.sum(others)
            sums.noise[part] += noise.sum(others)
            if self.may_be_probabilities:
                peaks = sums.peak[part]
                np.maximum(peaks, signal.max(others, initial=0.0), out=peaks)

    @property
    def may_be_probabilities(self) -> bool:
        """Whether all values so far lie between 0 and 1."""
        return self.low >= 0.0 and self.high <= 1.0 + 1e-6

    def judge(self, output: str, count: int = 5) -> tuple[list[SliceFidelity], int]:
        """The `count` judged slices with noise that have the lowest SQNR, worst first, and the
        number of all that are dead."""
        worst: list[SliceFidelity] = []
        all_dead = 0
        probabilities = self.may_be_probabilities and self.high > 0.0
        for axis, sums in sorted(self.axes.items()):
            rms = np.sqrt(sums.signal / max(sums.count, 1))
            carrying = rms[rms > SILENT]
            quiet = QUIET if sums.count >= FEW_VALUES else QUIET_OF_FEW
            floor = max(SILENT, quiet * float(np.median(carrying))) if carrying.size else math.inf
            judged = rms >= floor
            if probabilities:
                judged &= np.sqrt(sums.peak) >= PROBABILITY_PEAK
            judged &= sums.noise > 0
            ratios = np.full(rms.size, math.inf)
            np.divide(sums.signal, sums.noise, out=ratios, where=judged)
            dead = ratios < 10.0 ** (SLICE_FLOOR_DB / 10)
            all_dead += int(np.count_nonzero(dead))
            for index in np.argsort(ratios, kind="stable")[:count]:
                if judged[index]:
                    ratio = decibel(float(sums.signal[index]), float(sums.noise[index]))
                    scale, is_dead = float(rms[index]), bool(dead[index])
                    worst.append(SliceFidelity(output, axis, int(index), ratio, scale, is_dead))
        return sorted(worst, key=lambda found: found.sqnr_db)[:count], all_dead
