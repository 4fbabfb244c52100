# SPDX-License-Identifier: Apache-2.0
"""Finds the coarsest quantisation that keeps a fidelity.

One knob sets the steps of all weights (`allocation`); every candidate is really run. Noise in the
outputs falls by about 6 dB per unit of the knob. What is returned was itself evaluated and met the
target.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from toolkit.allocation import FINEST, Allocation
from toolkit.fidelity import Fidelity
from toolkit.targets import Target

DB_PER_KNOB = 20.0 * math.log10(2.0)
DB_TOLERANCE = 0.25
MAX_EVALUATIONS = 10
NEAR = 0.6
"""Draws at most so far from the typical knob count for it."""
APART = 1 / 32
"""Least distance of two draws, so that their errors differ."""
LEEWAY = 0.02
"""How far above the typical knob a passing draw may lie."""
CALM_DB = 0.8
"""With draws this close together there is no luck to guard against."""
ENOUGH = 5
"""Draws near the typical knob that suffice where they scatter."""
MAX_EXCESS = 40.0
UNHEALTHY_DB = 2.0
"""What a dead slice counts as, in dB below the target, whatever the whole outputs say."""
LOST_IN_A_ROW = 3
"""After so many draws that lose a slice the next one is a whole unit finer, then two, four ..."""
LEAST_SLOPE, MOST_SLOPE = DB_PER_KNOB / 2, 3 * DB_PER_KNOB
"""Of excess over the knob, in dB: less than by the law of high rate where what flips is counted,
more where weights lose their last bits."""
COLLAPSED_DB = -8.0
"""A draw so far below the target lost more than a coarser step takes."""

START_KNOB = -3.0
Steps = Mapping[str, float]


@dataclass
class TracePoint:
    """One candidate of the search. `num_bytes` is of the whole file, measured by really writing it
    where `measured`, else estimated from entropy. Infinite figures are exact or lost outputs."""

    stage: str
    knob: float
    num_bytes: float
    measured: bool
    sqnr_db: float | None = None
    max_relative_error: float | None = None
    healthy: bool | None = None


@dataclass
class SearchResult:
    """The chosen steps. `steps` is None where no quantisation keeps the target. `reached` tells
    whether `target` was met; `fidelity` is that of the chosen candidate."""

    steps: dict[str, float] | None
    knob: float
    reached: bool
    fidelity: Fidelity | None
    trace: list[TracePoint] = field(default_factory=list)


@dataclass
class Measures:
    """What a search may ask for, for given steps: `fidelity` runs the model, `estimate` gives the
    bytes of the file from entropy, `write` encodes it and counts."""

    fidelity: Callable[[Steps], Fidelity]
    estimate: Callable[[Steps], float]
    write: Callable[[Steps], int]
    progress: Callable[[str], None] = lambda text: None


def search_fidelity(
    allocation: Allocation,
    target: Target,
    measures: Measures,
    start: float = START_KNOB,
    tolerance_db: float = DB_TOLERANCE,
    max_evaluations: int = MAX_EVALUATIONS,
) -> SearchResult:
    """Coarsest steps whose outputs meet `target` (`min_sqnr` or `max_error`).

    One candidate is one draw of the quantisation error. Where the outputs are few numbers (a
    classifier of two classes) draws scatter by 10 dB, and taking the coarsest one that happened to
    pass would take the luckiest. So the knob is sought at which the *typical* candidate meets the
    target: the median over the draws near it, each moved along the slope of 6 dB per unit. What is
    returned is a candidate near that knob which was itself seen to meet the target; where outputs
    are many numbers there is no scatter and two or three draws suffice.
    """
    trace: list[TracePoint] = []
    draws: list[_Draw] = []
    knob = min(max(start, FINEST), allocation.coarsest)
    while len(draws) < max_evaluations:
        steps = allocation.steps(knob)
        fidelity = measures.fidelity(steps)
        trace.append(measured_point(allocation.mode, knob, measures.estimate(steps), fidelity))
        measures.progress(f"step 2^{knob:+.2f} RMS: {fidelity.sqnr_db:.1f} dB")
        draws.append(_draw(knob, target, fidelity))
        centre = _centre(draws)
        if _settled(draws, centre, tolerance_db, allocation.coarsest):
            break
        knob = _next(draws, centre, allocation.coarsest)
        if any(draw.knob == knob for draw in draws):  # at an end of the range
            break
    centre = _centre(draws)
    passing = [draw for draw in draws if draw.passes]
    typical = [draw for draw in passing if draw.knob <= centre + LEEWAY]
    chosen = max(typical or passing, key=lambda draw: draw.knob, default=None)
    safe = _coarsest_safe(draws)
    if safe is not None and (chosen is None or safe.knob > chosen.knob):
        chosen = safe
    if chosen is None:
        return SearchResult(None, FINEST, False, None, trace)
    steps = allocation.steps(chosen.knob)
    return SearchResult(steps, chosen.knob, True, chosen.fidelity, trace)


@dataclass
class _Draw:
    knob: float
    excess: float  # dB above the target, kept within +-MAX_EXCESS
    passes: bool
    fidelity: Fidelity
    is_measured: bool  # whether `excess` is what was found, and nothing that stands for more
    is_lost: bool  # whether the noise is low enough, but a slice is lost in it


def _draw(knob: float, target: Target, fidelity: Fidelity) -> _Draw:
    passes = target.meets_fidelity(fidelity)
    found = target.excess(fidelity)
    excess = min(max(found, -MAX_EXCESS), MAX_EXCESS)
    if not passes:
        is_dead = target.needs_health and not fidelity.healthy
        excess = min(excess, -UNHEALTHY_DB if is_dead else -0.01)
    is_lost = not passes and found >= 0
    return _Draw(knob, excess, passes, fidelity, excess == found, is_lost)


def _centre(draws: list[_Draw]) -> float:
    """Knob at which the median draw meets the target, from the draws nearest to it."""
    bracket = _blind_bracket(draws)
    if bracket is not None:
        return sum(bracket) / 2
    slope = _slope(draws) or DB_PER_KNOB
    centre = min(draws, key=lambda draw: abs(draw.excess))
    knob = centre.knob + centre.excess / slope
    for _ in range(3):
        near = [draw for draw in draws if abs(draw.knob - knob) <= NEAR]
        if len(near) < 3:
            near = sorted(draws, key=lambda draw: abs(draw.knob - knob))[:3]
        knob = median(draw.knob + draw.excess / slope for draw in near)
    return knob


def _blind_bracket(draws: list[_Draw]) -> tuple[float, float] | None:
    """The coarsest knob that passes as all finer ones do, and the next one, where the former says
    nothing of how far the target is off: nothing of what the metric counts was lost there."""
    safe = _coarsest_safe(draws)
    coarser = [draw.knob for draw in draws if safe is not None and draw.knob > safe.knob]
    if safe is None or safe.excess < MAX_EXCESS or not coarser:
        return None
    return safe.knob, min(coarser)


def _slope(draws: list[_Draw]) -> float | None:
    """dB of excess that a unit of the knob costs near the target, between the two draws that tell
    most; None where draws do not lie in order, so that they scatter, or are too few to tell."""
    ordered = sorted((draw for draw in draws if draw.is_measured), key=lambda draw: draw.knob)
    if len(ordered) < 2 or any(b.excess >= a.excess for a, b in pairwise(ordered)):
        return None
    first, *others = sorted(ordered, key=lambda draw: abs(draw.excess))
    apart = [draw for draw in others if abs(draw.knob - first.knob) >= 2 * APART]
    if not apart:
        return None
    slope = (first.excess - apart[0].excess) / (apart[0].knob - first.knob)
    return min(max(slope, LEAST_SLOPE), MOST_SLOPE)


def _settled(draws: list[_Draw], centre: float, tolerance_db: float, coarsest: float) -> bool:
    last = draws[-1]
    if last.passes and last.knob >= coarsest:
        return True
    if not last.passes and last.knob <= FINEST:
        return True
    bracket = _blind_bracket(draws)
    if bracket is not None:
        return bracket[1] - bracket[0] <= 2 * APART
    near = [draw for draw in draws if abs(draw.knob - centre) <= NEAR]
    passing = [d for d in near if d.passes and d.knob <= centre + LEEWAY]
    if not passing:
        return False
    best = max(passing, key=lambda draw: draw.knob)
    slope = _slope(draws) or DB_PER_KNOB
    spread = max(abs(d.knob + d.excess / slope - centre) for d in near) * slope
    if len(near) >= 2 and spread <= CALM_DB and best.excess <= max(tolerance_db, spread):
        return True
    return len(near) >= ENOUGH and centre - best.knob <= NEAR / 4


def _coarsest_safe(draws: list[_Draw]) -> _Draw | None:
    """The coarsest draw that passes as all finer ones do: no luck of a single draw."""
    safe = None
    for draw in sorted(draws, key=lambda draw: draw.knob):
        if not draw.passes:
            break
        safe = draw
    return safe


def _next(draws: list[_Draw], centre: float, coarsest: float) -> float:
    """The next knob to try: the centre itself, or a little beside it where that was tried. Where a
    draw collapsed, as when a weight loses its last bits, or the coarsest that passes lost nothing
    at all, the slope says nothing: halve the way. Nor does it where slices stay lost: double it."""
    safe = _coarsest_safe(draws)
    failed = min((d for d in draws if not d.passes), key=lambda draw: draw.knob, default=None)
    collapsed = failed is not None and failed.excess < COLLAPSED_DB
    blind = _blind_bracket(draws) is not None
    if safe and failed and (collapsed or blind) and failed.knob - safe.knob > 2 * APART:
        return (safe.knob + failed.knob) / 2
    last = draws[-1]
    lost = len(draws) - max((i for i, draw in enumerate(draws, 1) if not draw.is_lost), default=0)
    if safe is None and lost >= LOST_IN_A_ROW:
        return max(last.knob - 2.0 ** (lost - LOST_IN_A_ROW), FINEST)
    is_far = safe is not None and failed is not None and failed.knob - safe.knob > 4 * APART
    if safe and failed and is_far and sum(draw.is_lost for draw in draws) >= LOST_IN_A_ROW:
        return (safe.knob + failed.knob) / 2
    aim = min(max(centre - 0.01, last.knob - 3.0), last.knob + 3.0)
    below = [draw for draw in draws if draw.knob <= centre + LEEWAY]
    stuck = sum(not draw.passes for draw in below if abs(draw.knob - centre) <= NEAR)
    if stuck >= 3:
        aim = min(draw.knob for draw in below) - APART
    aim = min(max(aim, FINEST), coarsest)
    apart = APART if _slope(draws) is None else APART / 4
    while any(abs(draw.knob - aim) < apart for draw in draws):
        aim -= apart
    return max(aim, FINEST)


def curve_points(
    allocation: Allocation,
    knob: float,
    measures: Measures,
    seconds: float,
    offsets: tuple[float, ...] = (-1.0, 1.0, -2.0, 2.0, -3.5, 0.0),
) -> list[TracePoint]:
    """Points around the chosen one for the picture of rate against fidelity, nearest first, as many
    as `seconds` allow."""
    points: list[TracePoint] = []
    stop = time.monotonic() + seconds
    for offset in offsets:
        at = knob + offset
        if time.monotonic() > stop or not FINEST <= at <= allocation.coarsest:
            continue
        steps = allocation.steps(at)
        points.append(
            measured_point("curve", at, measures.estimate(steps), measures.fidelity(steps))
        )
        measures.progress(f"curve: {points[-1].sqnr_db:.1f} dB")
    return points


def measured_point(stage: str, knob: float, num_bytes: float, fidelity: Fidelity) -> TracePoint:
    """A candidate that was run, its bytes estimated."""
    point = TracePoint(stage, knob, num_bytes, False)
    add_fidelity(point, fidelity)
    return point


def add_fidelity(point: TracePoint, fidelity: Fidelity) -> None:
    """Notes what a candidate that was run gives."""
    point.sqnr_db = fidelity.sqnr_db
    point.max_relative_error = fidelity.max_relative_error
    point.healthy = fidelity.healthy
