# SPDX-License-Identifier: Apache-2.0
"""A model made ready to be measured: its inputs, what the original gives for them, and a session
that takes other weights at each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.calibration_split import CalibrationSplit, split_calibration
from toolkit.errors import InputError, one_line
from toolkit.evaluator import Evaluator, irreproducible
from toolkit.fidelity import Fidelity, compare_outputs
from toolkit.fitting import Fitting, PlainFitting
from toolkit.fixed_sizes import fixed_sizes
from toolkit.index_bounds import index_bounds
from toolkit.inputs import MAX_CALIBRATION_FEEDS, MAX_FITTED_FEEDS, model_inputs, work_of_feed
from toolkit.judged_values import JudgedValues
from toolkit.metrics import Metric, Score
from toolkit.ort_session import open_session
from toolkit.output_parts import affine_outputs, output_parts
from toolkit.padding import without_padding
from toolkit.pipeline import Source
from toolkit.search import Steps
from toolkit.signature import model_signature
from toolkit.task_metrics import TaskMetric

if TYPE_CHECKING:
    from passes.settings import WeightSettings

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


@dataclass
class Prepared:
    """A model ready to be measured: `feeds`, padding aside, and what the original gives for them;
    `fitted` are the feeds to fit to, `checked` those for the last word, `checks` the same model
    measured on them, None where they are no others. Outputs are compared as `judged` says;
    `baseline` is the original's `metric`, `work` what a run on all feeds takes, in
    multiply-accumulates. `arrays` are the weights that steps are sought for, `extras` others that
    may be replaced too."""

    evaluator: Evaluator
    arrays: dict[str, npt.NDArray[Any]]
    extras: dict[str, npt.NDArray[Any]]
    feeds: list[Feed]
    fitted: list[Feed]
    generated: bool
    reference: list[dict[str, Any]]
    judged: JudgedValues
    ignored: list[str]
    notes: list[str]
    fitting: Fitting
    metric: Score | None = None
    baseline: float = 0.0
    work: float = 0.0
    checks: Prepared | None = None

    @property
    def checked(self) -> Prepared:
        """The model as the last word is had on it."""
        return self.checks or self

    def set_aside(self, name: str) -> None:
        """Takes a weight out of the search: it stays as it is."""
        self.extras[name] = self.arrays.pop(name)

    def fidelity(self, steps: Steps) -> Fidelity:
        """That of the model with all weights quantised at `steps`."""
        return self.fidelity_with(self.fitting.values(self.arrays, steps, draft=False))

    def fidelity_with(self, changed: Mapping[str, npt.NDArray[Any]]) -> Fidelity:
        """That of the model with other values of some weights."""
        values = {**self.extras, **self.arrays, **changed}
        fidelity = self._compared(values, self.feeds, self.reference)
        if self.metric is not None:
            fidelity.score = self.metric.score(partial(self.evaluator.outputs, values))
        return fidelity

    def alone(self, name: str, step: float, draw: int) -> Fidelity:
        """That of the model with one weight quantised, on every second feed from `draw` on."""
        first = draw if len(self.feeds) > draw else 0
        changed = self.fitting.values(self.arrays, {name: step}, draft=True)
        values = {**self.extras, **self.arrays, **changed}
        return self._compared(values, self.feeds[first::2], self.reference[first::2])

    def runs_within(self, work: float) -> int:
        """How many runs of `alone` take so many multiply-accumulates."""
        once = max(self.work, sum(array.size for array in self.arrays.values())) / 2
        return max(1, int(work / max(once, 1)))

    def _compared(
        self,
        values: Mapping[str, npt.NDArray[Any]],
        feeds: Sequence[Feed],
        reference: Sequence[Mapping[str, Any]],
    ) -> Fidelity:
        found = self.judged.of(self.evaluator.run(values, feeds))
        return compare_outputs(reference, without_padding(found, feeds), self.ignored)


def prepare(
    source: Source,
    names: Sequence[str],
    calibration: Path | None,
    threads: int,
    metric: Metric | TaskMetric | None = None,
    divide: bool = False,
    behind: bool = True,
    extra: Sequence[str] = (),
) -> Prepared:
    """Makes inputs and runs the original once. `names` are the weights that will be replaced,
    `extra` initializers that may be as well; with `divide` most of the calibration data is not
    measured on, so that it can be fitted to; with `behind` outputs are compared by their parts, and
    probabilities as scores. Raises `InputError` where no inputs can be had."""
    specs, bounds = model_signature(source.model), index_bounds(source.model)
    arrays = {name: source.weights[name].array() for name in names}
    extras = {name: _initializer(source, name) for name in extra}
    original = {**extras, **arrays}
    try:
        copy = source.model.clone()
        taken = {name: copy.graph.initializers[name] for name in original}
        parts = output_parts(copy.graph) if behind else {}
        observed = {part.key: part.value for found in parts.values() for part in found}
        evaluator = Evaluator(copy, taken, threads, observed)
    except Exception:
        open_session(source.path, threads)  # says so where the model itself is at fault
        raise
    most = MAX_FITTED_FEEDS if divide else MAX_CALIBRATION_FEEDS
    inputs = model_inputs(
        specs,
        calibration,
        bounds,
        lambda feed: evaluator.run(original, [feed]),
        most,
        partial(work_of_feed, source.model),
        fixed_sizes(source.model),
    )
    notes = list(inputs.notes)
    split = CalibrationSplit(inputs.feeds, (list(range(len(inputs.feeds))),) * 3)
    if divide and not inputs.generated:
        split = split_calibration(
            inputs.feeds, specs, lambda feed: evaluator.outputs(original, feed)
        )
        notes.append(split.note)
    labels: list[npt.NDArray[Any]] = []
    if isinstance(metric, TaskMetric):
        labels = metric.labels_of(split.pieces, len(inputs.feeds) >= most)
    parted = {output: [part.key for part in found] for output, found in parts.items()}

    def original_on(feeds: Sequence[Feed]) -> list[dict[str, Any]]:
        try:
            return evaluator.run(original, feeds)
        except Exception as error:  # the first samples ran, others need not
            data = "made-up inputs" if inputs.generated else str(calibration)
            raise InputError(
                f"{data}: the model does not run on all of it ({one_line(error)})"
            ) from error

    runs = original_on(split.apart)
    raw = affine_outputs(source.model.graph)
    judged = JudgedValues.found(runs, parted, raw) if behind else JudgedValues()
    ignored = irreproducible(judged.of(runs), judged.of(evaluator.run(original, split.apart)))
    if ignored:
        notes.append(
            f"outputs {', '.join(ignored)} differ from run to run in the original already: "
            "they do not count"
        )
    notes += judged.notes

    def score_of(score: Score | None) -> float:
        if score is None:
            return 0.0
        return score.score(partial(evaluator.outputs, original))

    whole = score_of(metric) if isinstance(metric, Metric) else 0.0

    def measured_on(part: int, runs: list[dict[str, Any]]) -> Prepared:
        feeds = split.of(part)
        score: Score | None = metric if isinstance(metric, Metric) else None
        baseline = whole
        if isinstance(metric, TaskMetric):
            own = [labels[index] for index in split.places[part]]
            score = metric.bound(feeds, own, runs)
            baseline = score_of(score)
        return Prepared(
            evaluator,
            arrays,
            extras,
            feeds,
            split.fitted,
            inputs.generated,
            without_padding(judged.of(runs), feeds),
            judged,
            ignored,
            notes,
            PlainFitting(threads),
            score,
            baseline,
            _work(source, feeds),
        )

    prepared = measured_on(1, runs)
    if split.places[1] != split.places[2]:
        prepared.checks = measured_on(2, original_on(split.checked))
    return prepared


def _work(source: Source, feeds: Sequence[Feed]) -> float:
    """That of a run on each of `feeds`: of the first, by the sizes of the others."""
    if not feeds:
        return 0.0
    sizes = [sum(array.size for array in feed.values()) for feed in feeds]
    return work_of_feed(source.model, feeds[0]) * sum(sizes) / max(1, sizes[0])


def _initializer(source: Source, name: str) -> npt.NDArray[Any]:
    tensor = source.model.graph.initializers[name].const_value
    if tensor is None:
        raise ValueError(f"{name}: the initializer has no data")
    return np.asarray(tensor.numpy())


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
