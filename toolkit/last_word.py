# SPDX-License-Identifier: Apache-2.0
"""Makes steps finer until they keep the target on the data that has the last word."""

from __future__ import annotations

from toolkit.allocation import FINEST, Allocation
from toolkit.prepare_model import Prepared
from toolkit.search import DB_PER_KNOB, UNHEALTHY_DB, Measures, SearchResult, measured_point
from toolkit.targets import Target

MAX_FINER = 6
"""Times that steps are made finer because the data that has the last word asks for it ..."""
LEAST_FINER, MOST_FINER = 1 / 64, 0.5
"""... by so much of the knob; and after the last time ..."""
MAX_BACK = 2
"""... so many steps between that and the one before are tried."""


def confirmed(
    best: SearchResult,
    allocation: Allocation,
    measures: Measures,
    checks: Prepared,
    targets: tuple[Target, Target],
) -> SearchResult:
    """`best`, or finer steps where those miss the target on the data that has the last word: as
    much finer as it lacks there, and then back again where that was more than it takes."""
    searched, last_word = targets

    def at(knob: float) -> SearchResult:
        steps = allocation.steps(knob)
        fidelity = measures.fidelity(steps)
        measures.progress(f"step 2^{knob:+.2f} RMS: {fidelity.sqnr_db:.1f} dB")
        trace.append(measured_point(allocation.mode, knob, measures.estimate(steps), fidelity))
        return SearchResult(steps, knob, searched.meets_fidelity(fidelity), fidelity, trace)

    def lacking(found: SearchResult) -> float:
        """By how much of the knob the steps are too coarse; 0 where they are not."""
        values = checks.fitting.values(checks.arrays, found.steps or {}, draft=False)
        fidelity = checks.fidelity_with(values)
        if last_word.meets_fidelity(fidelity):
            return 0.0
        lost = UNHEALTHY_DB if last_word.needs_health and not fidelity.healthy else 0.0
        lack = max(lost, -last_word.excess(fidelity)) / DB_PER_KNOB
        return min(max(lack, LEAST_FINER), MOST_FINER) + LEAST_FINER

    if best.steps is None:
        return best
    missed, trace = best.knob, best.trace
    lack = lacking(best)
    for _ in range(MAX_FINER):
        if not lack or best.knob <= FINEST:
            break
        missed = best.knob
        best = at(max(best.knob - lack, FINEST))
        lack = lacking(best)
    for _ in range(MAX_BACK):
        if lack or missed - best.knob <= MOST_FINER / 4:
            break
        between = at((missed + best.knob) / 2)
        if lacking(between):
            missed = between.knob
        else:
            best = between
    return best
