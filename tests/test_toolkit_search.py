# SPDX-License-Identifier: Apache-2.0
"""The search on laws that are known, and the allocation against its theory."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.allocation import MAX_SYMBOL, Allocation, fill_sensitivity
from toolkit.fidelity import Fidelity
from toolkit.last_word import confirmed
from toolkit.rate_curve import rate_curve
from toolkit.search import Measures, search_fidelity
from toolkit.sensitivity import measure_sensitivity
from toolkit.size_search import search_size
from toolkit.targets import Target

RNG = np.random.default_rng(0)
CURVES = {
    "a": rate_curve(RNG.standard_normal(20_000).astype(np.float32)),
    "b": rate_curve(0.01 * RNG.standard_normal(80_000).astype(np.float32)),
}
TRUE = {"a": 3.0, "b": 0.2}


def outputs(steps, scatter: float = 0.0, seed: int = 0) -> Fidelity:  # type: ignore[no-untyped-def]
    noise = sum(TRUE[name] * CURVES[name].mse_at(step) for name, step in steps.items())
    rng = np.random.default_rng([seed, int(1e6 * steps["a"])])
    db = -10 * math.log10(noise) + scatter * rng.standard_normal()
    return Fidelity([], db, 10 ** (-db / 20), True)


def measures(allocation: Allocation, scatter: float = 0.0) -> Measures:
    return Measures(
        lambda steps: outputs(steps, scatter),
        lambda steps: 1000 + allocation.bits(steps) / 8,
        lambda steps: int(1200 + 1.03 * allocation.bits(steps) / 8),
    )


@pytest.mark.parametrize("target", [12.0, 25.0, 45.0])
@pytest.mark.parametrize("start", [-9.0, -3.0, 2.0])
def test_the_search_stops_just_above_the_target(target: float, start: float) -> None:
    allocation = Allocation(CURVES)
    found = search_fidelity(allocation, Target("min_sqnr", target), measures(allocation), start)
    assert found.reached
    assert found.fidelity is not None
    assert target <= found.fidelity.sqnr_db <= target + 0.6
    assert len(found.trace) <= 10


def test_a_lucky_draw_is_not_taken() -> None:
    allocation = Allocation(CURVES)
    goal = Target("min_sqnr", 25.0)
    calm = search_fidelity(allocation, goal, measures(allocation))
    wild = search_fidelity(allocation, goal, measures(allocation, scatter=4.0))
    assert wild.fidelity is not None
    assert wild.fidelity.sqnr_db >= 25.0
    assert abs(wild.knob - calm.knob) < 1.2


def test_an_unreachable_target_gives_no_steps() -> None:
    lost = Fidelity([], -math.inf, math.inf, False)
    allocation = Allocation(CURVES)
    hopeless = Measures(lambda s: lost, lambda s: 1.0, lambda s: 1)
    found = search_fidelity(allocation, Target("min_sqnr", 25.0), hopeless)
    assert found.steps is None
    assert not found.reached


def test_exact_outputs_end_at_the_coarsest_step() -> None:
    exact = Fidelity([], math.inf, 0.0, True)
    allocation = Allocation(CURVES)
    blind = Measures(lambda s: exact, lambda s: 1.0, lambda s: 1)
    assert search_fidelity(allocation, Target("min_sqnr", 25.0), blind).knob == 2.5


def test_max_error_is_a_target_too() -> None:
    allocation = Allocation(CURVES)
    found = search_fidelity(allocation, Target("max_error", 0.05), measures(allocation))
    assert found.fidelity is not None
    assert 0.046 <= found.fidelity.max_relative_error <= 0.05


@pytest.mark.parametrize("size", [20_000, 60_000])
def test_the_file_is_as_large_as_allowed(size: int) -> None:
    allocation = Allocation(CURVES)
    found = search_size(allocation, Target("target_size", size), measures(allocation))
    assert found.reached
    assert found.steps is not None
    written = measures(allocation).write(found.steps)
    assert 0.98 * size <= written <= size


@pytest.mark.parametrize("power", [0.6, 1.0, 1.8])
def test_sizes_far_from_what_entropy_says_are_met_by_few_files(power: float) -> None:
    """Where symbols are chosen by rate, files shrink faster or slower than entropy does."""
    allocation, written = Allocation(CURVES), list[int]()

    def write(steps) -> int:  # type: ignore[no-untyped-def]
        written.append(int(1500 + 60_000 * (allocation.bits(steps) / 400_000) ** power))
        return written[-1]

    files = replace(measures(allocation), write=write)
    found = search_size(allocation, Target("target_size", 30_000), files)
    assert found.reached
    assert max(size for size in written if size <= 30_000) >= 0.996 * 30_000
    assert len(written) <= 5


def test_a_size_is_met_where_files_hardly_shrink() -> None:
    """No file may be the answer because all that were written are a little too large."""
    allocation, knobs = Allocation(CURVES), list[float]()

    def write(steps) -> int:  # type: ignore[no-untyped-def]
        knobs.append(math.log2(steps["a"] / CURVES["a"].rms))
        return 30_010 if knobs[-1] < 1.5 else 29_000

    files = replace(measures(allocation), write=write)
    found = search_size(allocation, Target("target_size", 30_000), files)
    assert found.reached and 1.5 <= found.knob < 2.5


def test_a_size_out_of_reach_is_said_so() -> None:
    allocation = Allocation(CURVES)
    found = search_size(allocation, Target("target_size", 1300.0), measures(allocation))
    assert not found.reached
    assert found.steps is not None


def test_steps_by_sensitivity_follow_the_law_at_high_rate() -> None:
    allocation = Allocation(CURVES, sensitivity=TRUE)
    steps = allocation.steps(-6.0)
    slopes = {n: TRUE[n] * (steps[n] / CURVES[n].rms) ** 2 / CURVES[n].size for n in CURVES}
    assert slopes["a"] == pytest.approx(slopes["b"], rel=0.25)


def test_steps_by_sensitivity_take_fewer_bits_for_the_same_outputs() -> None:
    uniform, weighted = Allocation(CURVES), Allocation(CURVES, sensitivity=TRUE)
    goal = Target("min_sqnr", 30.0)
    plain = search_fidelity(uniform, goal, measures(uniform))
    better = search_fidelity(weighted, goal, measures(weighted))
    assert plain.steps is not None
    assert better.steps is not None
    assert weighted.bits(better.steps) < 0.97 * uniform.bits(plain.steps)


def test_weights_that_were_not_measured_get_the_mean() -> None:
    filled = fill_sensitivity(CURVES, {"a": 4.0})
    assert filled == pytest.approx({"a": 4.0, "b": 4.0})
    assert fill_sensitivity(CURVES, {"a": 0.0}) == {}


def test_draws_that_are_mere_noise_are_pulled_to_the_mean() -> None:
    from toolkit.fidelity import OutputFidelity

    def fidelity(db: float) -> Fidelity:
        output = OutputFidelity("y", "float", 10, db, 0.0, 0.0, 1.0, 0.0)
        return Fidelity([output], db, 0.0, True)

    names = [f"w{i}" for i in range(12)]
    curves = {name: CURVES["a"] for name in names}
    steps = dict.fromkeys(names, 0.1)
    rng = np.random.default_rng(3)
    noisy, count = measure_sensitivity(
        curves, steps, lambda n, s, d: fidelity(30 + 8 * rng.standard_normal()), fidelity(20.0), 99
    )
    clear, _ = measure_sensitivity(
        curves, steps, lambda n, s, d: fidelity(20.0 + 3 * names.index(n)), fidelity(20.0), 99
    )
    assert count == 12
    assert np.std(np.log(list(noisy.values()))) < 0.9
    assert np.std(np.log(list(clear.values()))) > 2.0


@pytest.mark.parametrize(("most", "workers"), [(1, 1), (3, 1), (3, 2), (4, 4), (99, 3)])
def test_sensitivity_takes_so_many_runs_from_the_largest_weight_on(most: int, workers: int) -> None:
    run: list[tuple[int, str]] = []

    def alone(name: str, step: float, draw: int) -> Fidelity:
        run.append((draw, name))
        return outputs({"a": 0.01, "b": 0.01})

    steps = {"a": 0.01, "b": 0.01}
    _, count = measure_sensitivity(CURVES, steps, alone, outputs(steps), most, workers=workers)
    order = sorted(CURVES, key=lambda name: -CURVES[name].size)
    every = [(draw, name) for draw in range(2) for name in order]
    assert sorted(run) == sorted(every[:most])
    assert count == len({name for _, name in run})


def test_sensitivity_is_measured_with_steps_that_symbols_can_hold() -> None:
    finest = {name: curve.peak / MAX_SYMBOL for name, curve in CURVES.items()}
    tried: list[float] = []

    def alone(name: str, step: float, draw: int) -> Fidelity:
        tried.append(step / finest[name])
        return outputs({"a": 0.01, "b": 0.01})

    measure_sensitivity(CURVES, finest, alone, outputs(finest), 9, lambda text: None)
    assert len(tried) >= 2 and min(tried) >= 1.0


@pytest.mark.parametrize("slope", [3.5, 12.0])
def test_another_slope_than_that_of_the_law_is_found(slope: float) -> None:
    """Where weights lose their last bits outputs fall faster than by 6 dB for each halving."""
    allocation, knobs = Allocation(CURVES), []

    def found(steps) -> Fidelity:  # type: ignore[no-untyped-def]
        knobs.append(math.log2(steps["a"] / CURVES["a"].rms))
        db = 20.0 - slope * (knobs[-1] + 1.0)
        return Fidelity([], db, 10 ** (-db / 20), True)

    exact = Measures(found, lambda steps: 1000.0, lambda steps: 1000)
    result = search_fidelity(allocation, Target("min_sqnr", 25.0), exact, start=0.5)
    assert result.reached and result.fidelity is not None
    assert 25.0 <= result.fidelity.sqnr_db <= 25.25
    assert len(knobs) <= 4


def test_dead_slices_do_not_count_where_only_the_metric_does() -> None:
    allocation, knobs = Allocation(CURVES), []

    def found(steps) -> Fidelity:  # type: ignore[no-untyped-def]
        knobs.append(math.log2(steps["a"] / CURVES["a"].rms))
        return Fidelity([], 10.0, 0.3, False, score=1.0 - 0.01 * 4.0 ** (knobs[-1] + 2))

    exact = Measures(found, lambda steps: 1000.0, lambda steps: 1000)
    target = Target("max_drop", 0.01).with_baseline(1.0)
    result = search_fidelity(allocation, target, exact, start=0.0)
    assert result.reached and abs(result.knob + 2) < 0.05
    assert len(knobs) <= 4


@pytest.mark.parametrize("limit", [-4.2, -0.3, 1.9])
def test_a_metric_that_loses_nothing_at_first_is_halved_in_upon(limit: float) -> None:
    """Of few samples none is lost, until one is, which is too much: no slope tells how far off."""
    allocation, knobs = Allocation(CURVES), list[float]()

    def found(steps) -> Fidelity:  # type: ignore[no-untyped-def]
        knobs.append(math.log2(steps["a"] / CURVES["a"].rms))
        score = 1.0 if knobs[-1] <= limit else 0.9 - 0.05 * (knobs[-1] - limit)
        return Fidelity([], 10.0, 0.3, True, score=score)

    exact = Measures(found, lambda steps: 1000.0, lambda steps: 1000)
    target = Target("max_drop", 0.02).with_baseline(1.0)
    result = search_fidelity(allocation, target, exact)
    assert result.reached and limit - 0.07 < result.knob <= limit
    assert len(knobs) == len({round(knob, 9) for knob in knobs}) <= 10


def test_a_slice_lost_on_the_last_word_asks_for_finer_steps() -> None:
    """The noise is low enough there, but a slice is dead until steps are 2^-1.5 as coarse."""
    allocation, goal = Allocation(CURVES), Target("min_sqnr", 25.0)
    first = search_fidelity(allocation, goal, measures(allocation))
    assert first.steps is not None
    limit = first.steps["a"] * 2**-1.5

    def found(values: dict[str, float]) -> Fidelity:
        return replace(outputs(values), sqnr_db=30.0, healthy=values["a"] <= limit)

    same = SimpleNamespace(values=lambda arrays, steps, draft: steps)
    checks = SimpleNamespace(fitting=same, arrays={}, fidelity_with=found)
    last = confirmed(first, allocation, measures(allocation), checks, (goal, goal))  # type: ignore[arg-type]
    assert last.steps is not None
    assert found(last.steps).healthy
    assert first.knob - 1.65 < last.knob <= first.knob - 1.5  # halved twice on the way back
    assert last.trace[-1].knob >= last.knob


@pytest.mark.parametrize("limit", [0.3, -1.4, -6.0])
@pytest.mark.parametrize("most", [8, 10])
def test_slices_that_stay_lost_are_looked_for_in_larger_steps(limit: float, most: int) -> None:
    """The noise is low enough long before the last slice is there; half the way from the first
    candidate to that knob is too far for steps of a slice's 2 dB."""
    allocation, knobs = Allocation(CURVES), list[float]()

    def found(steps) -> Fidelity:  # type: ignore[no-untyped-def]
        knobs.append(math.log2(steps["a"] / CURVES["a"].rms))
        return Fidelity([], 26.0 - 5 * (knobs[-1] - 1.0), 0.05, knobs[-1] <= limit)

    exact = Measures(found, lambda steps: 1000.0, lambda steps: 1000)
    goal = Target("min_sqnr", 24.0)
    result = search_fidelity(allocation, goal, exact, start=1.0, max_evaluations=most)
    assert result.reached and len(knobs) <= most
    assert limit - 0.65 <= result.knob <= limit
