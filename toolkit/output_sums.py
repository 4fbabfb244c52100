# SPDX-License-Identifier: Apache-2.0
"""What is summed up over the runs of two models, block by block: the outputs of a language model
are larger than the caches, and each block is looked at in a dozen ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.flat_outputs import as_real, blocks
from toolkit.slices import SliceSums

MAX_TOP1_WIDTH = 200_000
"""Longest last axis on which the largest value still counts as a predicted class."""


@dataclass
class OutputSums:
    """Running sums over the feeds of one output."""

    kind: str
    count: int = 0
    equal: int = 0
    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    other: float = 0.0
    max_error: float = 0.0
    peak: float = 0.0
    top1_equal: int = 0
    top1_count: int = 0
    top1_possible: bool = True
    problem: str = ""
    slices: SliceSums = field(default_factory=SliceSums)


def add_floats(entry: OutputSums, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
    """Adds one run: arrays of floats or complex numbers of one shape."""
    before, after = as_real(before), as_real(after)
    shape = before.shape
    entry.count += before.size
    entry.slices.begin(shape)
    # Winners are counted where the output looks like scores: [samples, classes]-like, rank 2 or 3.
    has_winners = len(shape) in (2, 3) and 2 <= shape[-1] <= MAX_TOP1_WIDTH and before.size > 0
    if has_winners:
        entry.top1_count += before.size // shape[-1]
    else:
        entry.top1_possible = False
    for place in blocks(shape):
        a, b = before[place].astype(np.float64), after[place].astype(np.float64)
        _add_equal(entry, a, b)
        error = b - a
        square, noise, other = np.square(a), np.square(error), np.square(b)
        entry.signal += float(square.sum())
        entry.noise += float(noise.sum())
        entry.other += float(other.sum())
        entry.dot += float(np.vdot(a, b))
        entry.max_error = max(entry.max_error, float(noise.max(initial=0.0)) ** 0.5)
        entry.peak = max(entry.peak, float(square.max(initial=0.0)) ** 0.5)
        entry.slices.add(place, a, square, noise)
        if has_winners:
            same = a.argmax(-1) == b.argmax(-1)
            entry.top1_equal += int(np.count_nonzero(same))


def _add_equal(entry: OutputSums, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> None:
    """Counts equal values, and sets values to 0 that are not finite in both arrays, in place."""
    same = a == b
    finite_a, finite_b = np.isfinite(a), np.isfinite(b)
    if not (finite_a.all() and finite_b.all()):
        same |= np.isnan(a) & np.isnan(b)
        if not np.array_equal(finite_a, finite_b) or not same[~finite_a].all():
            entry.problem = "NaN or infinity where the original has none, or the other way round"
        odd = ~(finite_a & finite_b)
        a[odd] = b[odd] = 0.0
    entry.equal += int(np.count_nonzero(same))
