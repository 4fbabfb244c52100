# SPDX-License-Identifier: Apache-2.0
"""Chooses the settings of every weight of a model for one target, by running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from toolkit.allocation import Allocation
from toolkit.calibration import Feed
from toolkit.evaluator import Evaluator, irreproducible
from toolkit.fidelity import Fidelity, compare_outputs
from toolkit.index_bounds import index_bounds
from toolkit.inputs import model_inputs
from toolkit.memory import release_memory
from toolkit.ort_session import open_session
from toolkit.pipeline import Source, finish, quantised_values
from toolkit.rate_curve import RateCurve, rate_curve
from toolkit.scores import ScoreKind, score_kinds, to_scores
from toolkit.search import (
    Measures,
    SearchResult,
    Steps,
    curve_points,
    search_fidelity,
    search_size,
)
from toolkit.sensitivity import measure_sensitivity
from toolkit.signature import model_signature
from toolkit.targets import Target

if TYPE_CHECKING:
    from passes.embed_functions import Portable
    from passes.settings import WeightSettings

SENSITIVITY_SECONDS = 20.0
CURVE_SECONDS = 8.0
FALLBACK_KNOB = -5.0
"""Where sensitivity is measured if the rough search found nothing: log2 of step / RMS."""

MARGIN_DB = 0.02
"""The search aims this much higher, for the round-off between ways of running a model."""

MINOR_OPERATORS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Add",
        "Sub",
        "Mul",
        "LSTM",
        "GRU",
        "RNN",
        "LayerNormalization",
        "SkipLayerNormalization",
        "FusedConv",
    }
)
"""Small tensors (biases, norms) are quantised, finely, where only these use them: a small error of
theirs makes a small error of the output. A variance under a root is none of them."""

MINOR_SIZE = 64

Progress = Callable[[str, str], None]


@dataclass
class Prepared:
    """A model ready to be measured: `feeds` and what the original gives for them. Outputs that are
    probabilities are compared as scores; `kinds` says which."""

    evaluator: Evaluator
    arrays: dict[str, npt.NDArray[Any]]
    feeds: list[Feed]
    generated: bool
    reference: list[dict[str, Any]]
    kinds: dict[str, ScoreKind]
    ignored: list[str]
    notes: list[str]
    threads: int

    def fidelity(self, steps: Steps) -> Fidelity:
        """That of the model with all weights quantised at `steps`."""
        values = {
            name: quantised_values(array, steps[name], self.threads) if name in steps else array
            for name, array in self.arrays.items()
        }
        found = to_scores(self.evaluator.run(values, self.feeds), self.kinds)
        return compare_outputs(self.reference, found, self.ignored)

    def fidelity_with(self, changed: Mapping[str, npt.NDArray[Any]]) -> Fidelity:
        """That of the model with other values of some weights."""
        found = to_scores(self.evaluator.run({**self.arrays, **changed}, self.feeds), self.kinds)
        return compare_outputs(self.reference, found, self.ignored)

    def alone(self, name: str, step: float, draw: int) -> Fidelity:
        """That of the model with one weight quantised, on every second feed from `draw` on."""
        first = draw if len(self.feeds) > draw else 0
        values = {**self.arrays, name: quantised_values(self.arrays[name], step, self.threads)}
        found = to_scores(self.evaluator.run(values, self.feeds[first::2]), self.kinds)
        return compare_outputs(self.reference[first::2], found, self.ignored)


def prepare(
    source: Source, names: Sequence[str], calibration: Path | None, threads: int
) -> Prepared:
    """Makes inputs and runs the original once. `names` are the weights that will be replaced.
    Raises `InputError` where no inputs can be had."""
    specs, bounds = model_signature(source.model), index_bounds(source.model)
    arrays = {name: source.weights[name].array() for name in names}
    try:
        copy = source.model.clone()
        taken = {name: copy.graph.initializers[name] for name in names}
        evaluator = Evaluator(copy, taken, threads)
    except Exception:
        open_session(source.path, threads)  # says so where the model itself is at fault
        raise
    inputs = model_inputs(specs, calibration, bounds, lambda feed: evaluator.run(arrays, [feed]))
    reference = evaluator.run(arrays, inputs.feeds)
    notes = list(inputs.notes)
    ignored = irreproducible(reference, evaluator.run(arrays, inputs.feeds))
    if ignored:
        notes.append(
            f"outputs {', '.join(ignored)} differ from run to run in the original already: "
            "they do not count"
        )
    kinds = score_kinds(reference)
    if kinds:
        notes.append(
            f"outputs {', '.join(kinds)} are probabilities: "
            "the search compares the scores behind them"
        )
    return Prepared(
        evaluator,
        arrays,
        inputs.feeds,
        inputs.generated,
        to_scores(reference, kinds),
        kinds,
        ignored,
        notes,
        threads,
    )


def searchable(source: Source, settings: Mapping[str, WeightSettings | None]) -> list[str]:
    """Names of the weights whose step is to be found: those that `settings` leaves open (None).
    Small tensors count where they are long enough and used by tame operators only."""
    names = []
    for name, how in settings.items():
        weight = source.weights[name]
        minor = weight.role == "minor" and (
            weight.num_elements < MINOR_SIZE or not set(weight.op_types) <= MINOR_OPERATORS
        )
        if how is None and not minor and weight.role != "integer":
            names.append(name)
    return names


def choose_steps(
    source: Source,
    prepared: Prepared,
    fixed: Mapping[str, WeightSettings],
    target: Target,
    portable: Portable,
    with_curve: bool,
    progress: Progress,
) -> SearchResult:
    """Steps for the weights in `prepared`, the others as in `fixed`."""
    curves: dict[str, RateCurve] = {}
    for name, array in prepared.arrays.items():
        curves[name] = rate_curve(array)
    roles = {name: source.weights[name].role for name in curves}
    rest = source.num_bytes - sum(array.nbytes for array in prepared.arrays.values())
    uniform = Allocation(curves, roles)

    def write(steps: Steps) -> int:
        from passes.settings import WeightSettings

        plan = {**fixed, **{name: WeightSettings(step=step) for name, step in steps.items()}}
        return finish(source.model.clone(), plan, portable).num_bytes

    measures = Measures(
        prepared.fidelity,
        lambda steps: rest + uniform.bits(steps) / 8,
        write,
        lambda text: progress("search", text),
    )
    release_memory()
    rough = _rough_target(target)
    if target.kind == "target_size":
        first = search_size(uniform, target, measures)
    else:
        first = search_fidelity(uniform, rough, measures, tolerance_db=2.0, max_evaluations=5)
    best = first
    weighted = _weighted(prepared, curves, roles, first, progress)
    if weighted is not None:
        if target.kind == "target_size":
            second = search_size(weighted, target, measures)
            second.trace[:0] = first.trace
            better = second.reached and _better(second, first)
        else:
            start = first.knob if first.steps is not None else FALLBACK_KNOB
            second = search_fidelity(weighted, rough, measures, start)
            second.trace[:0] = first.trace
            better = second.steps is not None
        if better:
            best = second
        else:
            first.trace[:] = second.trace
            weighted = None
    if weighted is None and target.kind != "target_size":
        again = search_fidelity(uniform, rough, measures, first.knob)
        again.trace[:0] = best.trace
        best = again
    if with_curve and best.steps is not None:
        chosen = weighted or uniform
        best.trace += curve_points(chosen, best.knob, measures, CURVE_SECONDS)
    return best


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
    sensitivity, measured = measure_sensitivity(
        large,
        steps,
        prepared.alone,
        together,
        SENSITIVITY_SECONDS,
        lambda text: progress("sensitivity", text),
    )
    if measured < 2 or not sensitivity:
        return None
    return Allocation(curves, roles, sensitivity)


def _better(second: SearchResult, first: SearchResult) -> bool:
    if second.fidelity is None or first.fidelity is None or not first.reached:
        return True
    if second.fidelity.healthy != first.fidelity.healthy:
        return second.fidelity.healthy
    return second.fidelity.sqnr_db >= first.fidelity.sqnr_db
