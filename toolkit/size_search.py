# SPDX-License-Identifier: Apache-2.0
"""Finds the finest quantisation whose file fits a size, by writing files."""

from __future__ import annotations

import math
from collections.abc import Mapping

from toolkit.allocation import FINEST, Allocation
from toolkit.search import Measures, SearchResult, TracePoint, add_fidelity
from toolkit.targets import Target

SIZE_TOLERANCE = 0.004
"""A file within this share below the target size is near enough."""
KNOB_TOLERANCE = 1 / 64
"""What lies closer together is not told apart."""
MAX_FILES = 8
LEAST_SHARE = 0.05
"""Of the way between a file that fits and one that does not: a next one lies so far from both."""


def search_size(allocation: Allocation, target: Target, measures: Measures) -> SearchResult:
    """Finest steps whose file is at most `target.value` bytes.

    Entropy gives the first guess; from files that are really written the next knob follows by a
    straight line through the logarithms of their sizes.
    """
    trace: list[TracePoint] = []
    sizes: dict[float, int] = {}
    knob: float | None = _knob_for(allocation, measures, _aim(target.value))
    while knob is not None and len(sizes) < MAX_FILES:
        sizes[knob] = measures.write(allocation.steps(knob))
        measures.progress(f"step 2^{knob:+.2f} RMS: {sizes[knob]:,} bytes")
        trace.append(TracePoint(allocation.mode, knob, sizes[knob], True))
        knob = _next_knob(sizes, target.value, allocation, measures)
    fitting = [knob for knob, size in sizes.items() if size <= target.value]
    chosen = min(fitting, default=allocation.coarsest)
    steps = allocation.steps(chosen)
    fidelity = measures.fidelity(steps)
    for point in trace:
        if point.knob == chosen:
            add_fidelity(point, fidelity)
    return SearchResult(steps, chosen, bool(fitting), fidelity, trace)


def _aim(most: float) -> float:
    """The size to aim at: in the middle of what is near enough."""
    return most * (1 - SIZE_TOLERANCE / 2)


def _next_knob(
    sizes: Mapping[float, int], most: float, allocation: Allocation, measures: Measures
) -> float | None:
    """The knob to write a file at, None where those that were written are near enough."""
    fits = min((knob for knob, size in sizes.items() if size <= most), default=None)
    finer = [knob for knob, size in sizes.items() if size > most and (fits is None or knob < fits)]
    over = max(finer, default=None)
    if fits is not None:
        if fits <= FINEST or sizes[fits] >= most * (1 - SIZE_TOLERANCE):
            return None
        if over is not None and fits - over <= KNOB_TOLERANCE / 4:
            return None
    elif over is not None and over >= allocation.coarsest:
        return None
    if fits is not None and over is not None:
        share = math.log(sizes[over] / _aim(most)) / math.log(sizes[over] / sizes[fits])
        return over + (fits - over) * min(max(share, LEAST_SHARE), 1 - LEAST_SHARE)
    knob = _beyond(sizes, most, allocation, measures)
    if over is not None:
        knob = max(knob, over + KNOB_TOLERANCE * 2 ** len(sizes))  # ends where no guess is right
    elif fits is not None:
        knob = min(knob, fits - KNOB_TOLERANCE)
    return min(max(knob, FINEST), allocation.coarsest)


def _beyond(
    sizes: Mapping[float, int], most: float, allocation: Allocation, measures: Measures
) -> float:
    """Where the size should be met if all files written lie on one side of it: by the line through
    the two nearest, else by entropy, corrected by the only file."""
    near, *others = sorted(sizes, key=lambda knob: abs(math.log(sizes[knob] / most)))
    if others and (others[0] - near) * (sizes[near] - sizes[others[0]]) > 0:
        slope = math.log(sizes[near] / sizes[others[0]]) / (others[0] - near)
        return near + math.log(sizes[near] / _aim(most)) / slope
    correction = sizes[near] / max(measures.estimate(allocation.steps(near)), 1.0)
    return _knob_for(allocation, measures, _aim(most) / correction)


def _knob_for(allocation: Allocation, measures: Measures, num_bytes: float) -> float:
    """Finest knob whose estimate is at most `num_bytes`."""
    low, high = FINEST, allocation.coarsest
    if measures.estimate(allocation.steps(low)) <= num_bytes:
        return low
    while high - low > 1 / 512:
        middle = (low + high) / 2
        if measures.estimate(allocation.steps(middle)) <= num_bytes:
            high = middle
        else:
            low = middle
    return high
