# SPDX-License-Identifier: Apache-2.0
"""Chooses the settings of every weight of a model for one target, by running it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.allocation import Allocation
from toolkit.fidelity import Fidelity
from toolkit.fitting import PlainFitting, chosen
from toolkit.fitting_options import better_options
from toolkit.last_word import confirmed
from toolkit.memory import release_memory
from toolkit.pipeline import FileLayout, Source, finish, set_initializers
from toolkit.prepare_model import Prepared
from toolkit.progress import Progress
from toolkit.rate_curve import RateCurve, rate_curve
from toolkit.search import (
    DB_PER_KNOB,
    START_KNOB,
    Measures,
    SearchResult,
    Steps,
    curve_points,
    measured_point,
    search_fidelity,
)
from toolkit.sensitivity import measure_sensitivity
from toolkit.size_search import search_size
from toolkit.targets import Target

if TYPE_CHECKING:
    from passes.settings import WeightSettings

SENSITIVITY_WORK = 1.5e12
"""Multiply-accumulates that runs may take to measure sensitivity, as `work_of_feed` counts them:
half a minute on two cores."""
CURVE_SECONDS = 8.0
FINE_KNOB = -9.0
"""A weight that ruins an output even here cannot bear quantisation: about 9 bits."""

FALLBACK_KNOB = -5.0
"""Where sensitivity is measured if the rough search found nothing: log2 of step / RMS."""

REFERENCE_KNOB = -2.0
"""Where it is measured for rate-aware rounding: fine enough for the laws of high rate."""

CALIBRATED_WORK = 6e12
CALIBRATED_EVALUATIONS = 8
METRICS_DB = 20.0
"""Output SQNR around which metrics begin to lose something, for a first guess."""
LEAST_START, MOST_START = -8.0, 1.0
"""Range of the first guess of the knob."""

WEIGHTS_DB = 29.0
"""Signal-to-noise ratio of a weight at `START_KNOB`, where errors are even within a step."""

MARGIN_DB = 0.02
"""The search aims this much higher, for the round-off between ways of running a model."""


def choose_steps(
    source: Source,
    prepared: Prepared,
    fixed: Mapping[str, WeightSettings],
    target: Target,
    layout: FileLayout,
    with_curve: bool,
    progress: Progress,
) -> SearchResult:
    """Steps for the weights in `prepared`, the others as in `fixed`. They keep the target on the
    data that has the last word, too, where that is possible."""
    last_word = target.with_baseline(prepared.checked.baseline)
    target = target.with_baseline(prepared.baseline)
    curves = {name: rate_curve(array) for name, array in prepared.arrays.items()}
    roles = {name: source.weights[name].role for name in curves}
    measures = _measures(source, prepared, fixed, layout, Allocation(curves, roles), progress)
    release_memory()
    if prepared.fitting.is_rate_aware:
        best, chosen = _by_sensitivity(prepared, curves, roles, measures, target, progress)
    else:
        best, chosen = _in_two_rounds(prepared, curves, roles, measures, target, progress)
    is_unmoved = best.fidelity is not None and best.fidelity.exact
    if is_unmoved and best.knob >= chosen.coarsest and target.kind != "target_size":
        return _by_weights_alone(best, chosen, measures, prepared)
    if prepared.checks is not None and target.kind != "target_size":
        best = confirmed(best, chosen, measures, prepared.checks, (target, last_word))
    if with_curve and best.steps is not None:
        best.trace += curve_points(chosen, best.knob, measures, CURVE_SECONDS)
    return best


def _by_weights_alone(
    best: SearchResult, allocation: Allocation, measures: Measures, prepared: Prepared
) -> SearchResult:
    """Steps for a model whose outputs are the same whatever its weights are, on inputs that are all
    zero, say: nothing that is measured holds the search back from steps that leave no weight."""
    knob = min(START_KNOB, best.knob)
    steps = allocation.steps(knob)
    fidelity = measures.fidelity(steps)
    best.trace.append(measured_point(allocation.mode, knob, measures.estimate(steps), fidelity))
    prepared.notes.append(
        "the outputs do not depend on the weights on these inputs: all steps are "
        f"2^{knob:g} of the root mean square, about {WEIGHTS_DB:g} dB of each weight"
    )
    return SearchResult(steps, knob, True, fidelity, best.trace)


def _measures(
    source: Source,
    prepared: Prepared,
    fixed: Mapping[str, WeightSettings],
    layout: FileLayout,
    uniform: Allocation,
    progress: Progress,
) -> Measures:
    rest = source.num_bytes - sum(array.nbytes for array in prepared.arrays.values())

    def write(steps: Steps) -> int:
        fitting = prepared.fitting
        values = fitting.values(prepared.arrays, steps, draft=False)
        plan = chosen(fitting, fixed, steps)  # which are kept now, where they are dear
        model = source.model.clone()
        set_initializers(model, {name: values[name] for name in values if name not in steps})
        return finish(model, plan, layout).num_bytes

    return Measures(
        prepared.fidelity,
        lambda steps: rest + uniform.bits(steps) / 8,
        write,
        lambda text: progress("search", text),
    )


def _by_sensitivity(
    prepared: Prepared,
    curves: Mapping[str, RateCurve],
    roles: Mapping[str, str],
    measures: Measures,
    target: Target,
    progress: Progress,
) -> tuple[SearchResult, Allocation]:
    """Measures at fine steps how much each weight matters, and searches once."""
    steps = Allocation(curves, roles).steps(REFERENCE_KNOB)
    together = prepared.fidelity_with(PlainFitting().values(prepared.arrays, steps, draft=True))
    large = {name: curve for name, curve in curves.items() if roles[name] != "minor"}
    lost: set[str] = set()
    sensitivity, _ = measure_sensitivity(
        large,
        steps,
        prepared.alone,
        together,
        prepared.runs_within(CALIBRATED_WORK),
        lambda text: progress("sensitivity", text),
        by_step=True,
        lost=lost,
        workers=prepared.fitting.workers,
    )
    curves = _without(prepared, curves, lost)
    allocation = Allocation(curves, roles, sensitivity, is_rate_aware=True)
    start = _start(allocation, target, together)
    found = _searched(allocation, target, measures, start)
    if found.steps is None or found.fidelity is None:
        return found, allocation
    fitting, num_bytes = prepared.fitting, measures.write(found.steps)
    gain = better_options(prepared, found, measures)
    if gain > 0:
        knob = min(found.knob + gain / DB_PER_KNOB, allocation.coarsest)
        again = _searched(allocation, target, measures, knob)
        trace = [*found.trace, *again.trace]
        if _is_worth(again, found, target, measures, num_bytes):
            found = again
        else:
            prepared.fitting = prepared.checked.fitting = fitting
        found.trace = trace
    return found, allocation


def _start(allocation: Allocation, target: Target, together: Fidelity) -> float:
    """A first guess of the knob: where the measured sensitivities promise the noise at which the
    target would be met, that being as far from it as from the noise of `together`."""
    curves, level = allocation.curves, together.sqnr_db
    squares = {
        name: (step / curves[name].rms) ** 2
        for name, step in allocation.steps(START_KNOB).items()
        if curves[name].rms and name in allocation.sensitivity
    }
    noise = sum(allocation.sensitivity[name] * square for name, square in squares.items())
    excess = target.excess(together)
    if math.isinf(excess) and excess > 0:  # nothing of what the metric counts was lost
        excess = level - METRICS_DB
    if not (noise > 0 and math.isfinite(level) and math.isfinite(excess)):
        return START_KNOB
    promised = excess - level - 10.0 * math.log10(noise)
    return min(max(START_KNOB + promised / DB_PER_KNOB, LEAST_START), MOST_START)


def _is_worth(
    again: SearchResult,
    found: SearchResult,
    target: Target,
    measures: Measures,
    num_bytes: int,
) -> bool:
    """Whether another search found something better than the first, whose file has `num_bytes`."""
    if again.steps is None or again.reached < found.reached:
        return False
    if target.kind == "target_size":
        return _better(again, found)
    return again.reached > found.reached or measures.write(again.steps) < num_bytes


def _searched(
    allocation: Allocation, target: Target, measures: Measures, start: float
) -> SearchResult:
    if target.kind == "target_size":
        return search_size(allocation, target, measures)
    return search_fidelity(
        allocation,
        _rough_target(target),
        measures,
        start,
        max_evaluations=CALIBRATED_EVALUATIONS,
    )


def _in_two_rounds(
    prepared: Prepared,
    curves: Mapping[str, RateCurve],
    roles: Mapping[str, str],
    measures: Measures,
    target: Target,
    progress: Progress,
) -> tuple[SearchResult, Allocation]:
    """Searches one step for all weights, measures there how much each matters, and searches
    again."""
    uniform, rough = Allocation(curves, roles), _rough_target(target)
    if target.kind == "target_size":
        first = search_size(uniform, target, measures)
    else:
        first = search_fidelity(uniform, rough, measures, tolerance_db=2.0, max_evaluations=5)
    best = first
    weighted = _weighted(prepared, curves, roles, first, progress)
    if len(prepared.arrays) < len(curves):  # some cannot bear quantisation
        curves = {name: curve for name, curve in curves.items() if name in prepared.arrays}
        uniform = Allocation(curves, roles)
        if first.steps is not None:
            first.steps = {name: first.steps[name] for name in curves}
    if weighted is not None:
        if target.kind == "target_size":
            second = search_size(weighted, target, measures)
            second.trace[:0] = first.trace
            better = second.reached and _better(second, first)
        else:
            start = first.knob if first.steps is not None else FALLBACK_KNOB
            second = search_fidelity(weighted, rough, measures, start)
            second.trace[:0] = first.trace
            better = second.steps is not None and not _is_smaller(first, second, measures)
        if better:
            best = second
        else:
            first.trace[:] = second.trace
            weighted = None
    if weighted is None and target.kind != "target_size":
        again = search_fidelity(uniform, rough, measures, first.knob)
        again.trace[:0] = best.trace
        best = again
    return best, weighted or uniform


def _without(
    prepared: Prepared, curves: Mapping[str, RateCurve], lost: Collection[str]
) -> Mapping[str, RateCurve]:
    """The curves of the weights that bear quantisation. Those `lost` weights that ruin an output
    even at fine steps are set aside."""
    kept = dict(curves)
    for name in sorted(lost):
        step = curves[name].rms * 2.0**FINE_KNOB
        found = [prepared.alone(name, step, draw) for draw in range(2)]
        if len(kept) > 1 and any(o.problem for fidelity in found for o in fidelity.outputs):
            prepared.set_aside(name)
            del kept[name]
    return kept


def _rough_target(target: Target) -> Target:
    if target.kind == "min_sqnr":
        return replace(target, value=target.value + MARGIN_DB)
    if target.kind == "max_error":
        return replace(target, value=target.value * 10 ** (-MARGIN_DB / 20))
    return target


def _weighted(
    prepared: Prepared,
    curves: Mapping[str, RateCurve],
    roles: Mapping[str, str],
    first: SearchResult,
    progress: Progress,
) -> Allocation | None:
    """The allocation by sensitivity, None where there is nothing to distribute or to measure."""
    if len(curves) < 2:
        return None
    steps, together = first.steps, first.fidelity
    if steps is None or together is None:  # one step for all cannot do it: all the more reason
        steps = Allocation(curves, roles).steps(FALLBACK_KNOB)
        together = prepared.fidelity(steps)
    large = {name: curve for name, curve in curves.items() if roles[name] != "minor"}
    lost: set[str] = set()
    sensitivity, measured = measure_sensitivity(
        large,
        steps,
        prepared.alone,
        together,
        prepared.runs_within(SENSITIVITY_WORK),
        lambda text: progress("sensitivity", text),
        lost=lost,
    )
    curves = _without(prepared, curves, lost)
    if measured < 2 or not sensitivity:
        return None
    return Allocation(curves, roles, sensitivity)


def _is_smaller(first: SearchResult, second: SearchResult, measures: Measures) -> bool:
    if first.steps is None or second.steps is None:
        return False
    return measures.estimate(first.steps) < measures.estimate(second.steps)


def _better(second: SearchResult, first: SearchResult) -> bool:
    if second.fidelity is None or first.fidelity is None or not first.reached:
        return True
    if second.fidelity.healthy != first.fidelity.healthy:
        return second.fidelity.healthy
    return second.fidelity.sqnr_db >= first.fidelity.sqnr_db
