# SPDX-License-Identifier: Apache-2.0
"""Runs the original, and decides how every weight is compressed: by the settings given, and by a
search for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from toolkit.allocation import MAX_SYMBOL
from toolkit.calibration import Feed
from toolkit.coarse_metrics import coarse_metric_notes
from toolkit.fitting import CalibratedFitting, chosen
from toolkit.judged_values import JudgedValues
from toolkit.memory import release_memory
from toolkit.metrics import Metric, Score
from toolkit.moment_store import moments_of
from toolkit.pipeline import CHUNK, finish
from toolkit.prepare_model import Prepared, prepare, searchable
from toolkit.progress import Progress
from toolkit.quantiser_search import choose_steps
from toolkit.search import SearchResult
from toolkit.targets import Target
from toolkit.task_metrics import TaskMetric

if TYPE_CHECKING:
    from passes.bias_correction import BiasPlace
    from passes.schemes import Moments, Parameters, RowUse
    from passes.settings import WeightSettings
    from toolkit.pipeline import FileLayout, Source

Settings = dict[str, "WeightSettings"]

MAX_RMS_SYMBOL = 1024.0
"""Root mean square of the symbols of a weight from which on it is kept lossless."""

_OF_OUTPUTS = ("max_error", "min_agreement")
"""Targets that speak of the outputs themselves, and not of what is behind them."""

_NEED_MOMENTS = frozenset(
    {"compensated", "compensated_trellis", "rate_distortion", "codebook", "trellis"}
)


class Run(Protocol):
    """What the decision needs to know of the run it belongs to."""

    calibration: Path | None
    threads: int
    layout: FileLayout
    sequential: bool

    @property
    def progress(self) -> Progress: ...

    def timed(self, stage: str) -> AbstractContextManager[None]: ...


@dataclass
class Choice:
    """Settings of every weight that is touched, and what is known from choosing them: `moments` of
    inputs, parameters fitted already, the feeds that have the last word (`feeds`), those that the
    search measured on and those that were fitted to; `judged` is how the search compared outputs,
    `reference` what the original gave for `feeds`, seen so; `score` is the metric on them."""

    settings: Settings
    target: Target
    result: SearchResult | None
    feeds: list[Feed]
    searched: list[Feed]
    fitted: list[Feed]
    ignored: list[str]
    notes: list[str]
    judged: JudgedValues
    reference: list[dict[str, Any]]
    moments: Mapping[str, Moments | RowUse] = field(default_factory=dict)
    known: dict[str, Parameters] = field(default_factory=dict)
    score: Score | None = None


def choose_settings(
    run: Run,
    source: Source,
    target: Target,
    settings: Mapping[str, WeightSettings | None],
    metric: Metric | TaskMetric | None,
    with_curve: bool,
) -> Choice:
    """Decides about the weights whose `settings` are None. Raises `InputError` where the model
    cannot be run or measured."""
    names = searchable(source, settings) if target.kind != "fixed" else []
    fixed = {name: how for name, how in settings.items() if how is not None}
    asking = [name for name, how in fixed.items() if how.stages and _needs_moments(how.stages)]
    calibrated = run.calibration is not None and bool(names or asking)
    with run.timed("inputs"):
        # Without a search the weights are taken out as well: the session stays small.
        taken = names or searchable(source, dict.fromkeys(settings))
        places = places_of(source, names) if calibrated else {}
        extra = sorted({place.bias for place in places.values()} - set(taken))
        prepared = prepare(
            source,
            taken,
            run.calibration,
            run.threads,
            metric,
            calibrated,
            behind=target.kind not in _OF_OUTPUTS,
            extra=extra,
        )
        release_memory()
    judged_behind = target.kind == "min_sqnr" and bool(names)
    choice = Choice(
        fixed,
        target.with_baseline(prepared.checked.baseline),
        None,
        prepared.checked.feeds,
        prepared.feeds,
        prepared.fitted,
        prepared.ignored,
        prepared.notes,
        prepared.judged if judged_behind else JudgedValues(),
        list(prepared.checked.reference) if judged_behind and prepared.judged.parted else [],
        score=prepared.checked.metric,
    )
    choice.notes += coarse_metric_notes(
        choice.target, choice.score, prepared.checked.reference if names else ()
    )
    if calibrated:
        with run.timed("moments"):
            _measure(run, source, prepared, [*names, *asking], choice, places)
    if names:
        with run.timed("search"):
            choice.result = choose_steps(
                source, prepared, fixed, target, run.layout, with_curve, run.progress
            )
            if run.sequential and choice.result.steps is not None and calibrated:
                _refit(run, source, prepared, choice, target, fixed)
        _take(choice, names, prepared)
    _release(prepared)
    release_memory()
    return choice


def places_of(source: Source, names: Sequence[str]) -> dict[str, BiasPlace]:
    """Where the mean errors of the weights in `names` can be made up for."""
    from passes.bias_correction import bias_places

    large = [name for name in names if source.weights[name].role != "minor"]
    return bias_places(source.model, large)


def _measure(
    run: Run,
    source: Source,
    prepared: Prepared,
    names: list[str],
    choice: Choice,
    places: Mapping[str, BiasPlace],
) -> None:
    large = [name for name in names if source.weights[name].role != "minor"]
    store = moments_of(
        source, prepared.fitted, large, run.threads, lambda text: run.progress("moments", text)
    )
    choice.moments = store
    choice.notes += [
        f"{name}: {why}: rounded without compensation" for name, why in store.missing.items()
    ]
    choice.notes += weak_moments(store)
    prepared.fitting = CalibratedFitting(
        source.weights, store, run.threads, places, prepared.extras
    )
    prepared.checked.fitting = prepared.fitting


def weak_moments(moments: Mapping[str, Moments | RowUse]) -> list[str]:
    """What is to be said of weights whose inputs are all zero, or too few to tell all features
    apart, and of tables of which not all is read."""
    from passes.schemes import Moments

    unread: list[str] = []
    zero: list[str] = []
    few: list[str] = []
    for name, known in moments.items():
        if not isinstance(known, Moments):
            if rows := int((known.counts == 0).sum()):
                unread.append(
                    f"{name}: {rows:,} of {known.counts.size:,} rows are read by no sample"
                )
            continue
        if not known.powers.any():
            zero.append(name)
        elif known.count < known.inputs.shape[1]:
            few.append(f"{name} ({known.count:.0f} rows, {known.inputs.shape[1]} features)")
    notes = [f"{name}: its inputs are all zero: rounded without compensation" for name in zero]
    notes += [f"{text}: rounded more coarsely than the others" for text in unread]
    if few:
        others = f" and {len(few) - 1} more weights" if len(few) > 1 else ""
        notes.append(
            f"{few[0]}{others}: second moments are singular, damping stands in for what is "
            "missing; more calibration data would be better"
        )
    return notes


def _refit(
    run: Run,
    source: Source,
    prepared: Prepared,
    choice: Choice,
    target: Target,
    fixed: Settings,
) -> None:
    """Fits layers again to the inputs that the compressed ones before them give, and keeps that
    where it is better."""
    from toolkit.refit_in_order import refit_in_order

    result = choice.result
    if result is None or result.steps is None or result.fidelity is None:
        return
    fitting, values = refit_in_order(
        source, prepared, result.steps, run.threads, lambda text: run.progress("refit", text)
    )
    found, before = prepared.fidelity_with(values), result.fidelity
    searched = target.with_baseline(prepared.baseline)
    better = searched.excess(found) > searched.excess(before) and found.healthy >= before.healthy
    if better and prepared.checks is not None:
        last_word = target.with_baseline(prepared.checks.baseline)
        better = last_word.meets_fidelity(prepared.checks.fidelity_with(values))
    if better and target.kind == "target_size":
        plan = chosen(fitting, fixed, result.steps)
        better = finish(source.model.clone(), plan, run.layout).num_bytes <= target.value
    if better:
        prepared.fitting = prepared.checked.fitting = fitting
        choice.moments, result.fidelity = fitting.moments, found
    choice.notes.append(
        "layers fitted again to the inputs that the compressed ones before them give: "
        f"{before.sqnr_db:.2f} -> {found.sqnr_db:.2f} dB, {'taken' if better else 'not taken'}"
    )


def _take(choice: Choice, names: list[str], prepared: Prepared) -> None:
    """Turns the steps that were found into settings."""
    from passes.settings import WeightSettings

    steps = choice.result.steps if choice.result is not None else None
    if steps is None:
        choice.notes.append(
            f"no quantisation keeps an {choice.target.text}: all weights are kept lossless"
        )
    for name in names:
        if steps is None:
            choice.settings[name] = WeightSettings(scheme="lossless")
            continue
        if _is_beyond(name, steps, prepared, choice.target):
            choice.notes.append(f"{name}: cannot bear quantisation, kept lossless")
            choice.settings[name] = WeightSettings(scheme="lossless")
            continue
        choice.settings[name] = prepared.fitting.settings(name, steps[name])
        known = prepared.fitting.kept(name, steps[name])
        if known is not None:
            choice.known[name] = known


def _is_beyond(name: str, steps: Mapping[str, float], prepared: Prepared, target: Target) -> bool:
    """Whether a weight has no step, or one at which its symbols fill 16 bits and most of them need
    some 12: a few that are much larger than the others are no reason."""
    if name not in steps or target.kind == "target_size":  # whose bytes were counted with steps
        return name not in steps
    array = prepared.arrays[name].reshape(-1)
    peak = max(float(array.max(initial=0)), -float(array.min(initial=0)))
    if peak / steps[name] <= MAX_SYMBOL - 1:
        return False
    parts = np.array_split(array, array.size // CHUNK + 1)
    energy = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
    return float(np.sqrt(energy / array.size)) / steps[name] > MAX_RMS_SYMBOL


def _needs_moments(stages: Any) -> bool:
    return any(name in _NEED_MOMENTS for name in _names_in(stages))


def _names_in(stages: Any) -> Iterator[str]:
    """Every name in a nested list of stages, options included."""
    if isinstance(stages, str):
        yield stages
    elif isinstance(stages, Mapping):
        for key, value in stages.items():
            yield str(key)
            yield from _names_in(value)
    elif isinstance(stages, list | tuple):
        for stage in stages:
            yield from _names_in(stage)


def _release(prepared: Prepared) -> None:
    """Lets go of the arrays and the session of a search: they are as large as the model."""
    prepared.arrays.clear()
    prepared.extras.clear()
    for part in {id(part): part for part in (prepared, prepared.checked)}.values():
        part.reference.clear()
        del part.evaluator
