# SPDX-License-Identifier: Apache-2.0
"""A model made ready to be measured: its inputs, what the original gives for them, and a session
that takes other weights at each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.calibration_split import split_calibration
from toolkit.evaluator import Evaluator, irreproducible
from toolkit.fidelity import Fidelity, compare_outputs
from toolkit.fitting import Fitting, PlainFitting
from toolkit.index_bounds import index_bounds
from toolkit.inputs import MAX_CALIBRATION_FEEDS, MAX_FITTED_FEEDS, model_inputs
from toolkit.judged_values import JudgedValues
from toolkit.metrics import Metric
from toolkit.ort_session import open_session
from toolkit.output_parts import output_parts
from toolkit.padding import without_padding
from toolkit.pipeline import Source
from toolkit.search import Steps
from toolkit.signature import model_signature

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
    `fitted` are the feeds to fit to. Outputs are compared as `judged` says; `baseline` is the
    original's `metric`."""

    evaluator: Evaluator
    arrays: dict[str, npt.NDArray[Any]]
    feeds: list[Feed]
    fitted: list[Feed]
    generated: bool
    reference: list[dict[str, Any]]
    judged: JudgedValues
    ignored: list[str]
    notes: list[str]
    fitting: Fitting
    metric: Metric | None = None
    baseline: float = 0.0

    def fidelity(self, steps: Steps) -> Fidelity:
        """That of the model with all weights quantised at `steps`."""
        return self.fidelity_with(self.fitting.values(self.arrays, steps, draft=False))

    def fidelity_with(self, changed: Mapping[str, npt.NDArray[Any]]) -> Fidelity:
        """That of the model with other values of some weights."""
        values = {**self.arrays, **changed}
        fidelity = self._compared(values, self.feeds, self.reference)
        if self.metric is not None:
            fidelity.score = self.metric.score(partial(self.evaluator.outputs, values))
        return fidelity

    def alone(self, name: str, step: float, draw: int) -> Fidelity:
        """That of the model with one weight quantised, on every second feed from `draw` on."""
        first = draw if len(self.feeds) > draw else 0
        changed = self.fitting.values(self.arrays, {name: step}, draft=True)
        values = {**self.arrays, **changed}
        return self._compared(values, self.feeds[first::2], self.reference[first::2])

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
    metric: Metric | None = None,
    divide: bool = False,
    behind: bool = True,
) -> Prepared:
    """Makes inputs and runs the original once. `names` are the weights that will be replaced; with
    `divide` most of the calibration data is not measured on, so that it can be fitted to; with
    `behind` outputs are compared by their parts, and probabilities as scores.
    Raises `InputError` where no inputs can be had."""
    specs, bounds = model_signature(source.model), index_bounds(source.model)
    arrays = {name: source.weights[name].array() for name in names}
    try:
        copy = source.model.clone()
        taken = {name: copy.graph.initializers[name] for name in names}
        parts = output_parts(copy.graph) if behind else {}
        observed = {part.key: part.value for found in parts.values() for part in found}
        evaluator = Evaluator(copy, taken, threads, observed)
    except Exception:
        open_session(source.path, threads)  # says so where the model itself is at fault
        raise
    inputs = model_inputs(
        specs,
        calibration,
        bounds,
        lambda feed: evaluator.run(arrays, [feed]),
        MAX_FITTED_FEEDS if divide else MAX_CALIBRATION_FEEDS,
    )
    notes, feeds, fitted = list(inputs.notes), inputs.feeds, inputs.feeds
    if divide and not inputs.generated:
        split = split_calibration(inputs.feeds, specs)
        feeds, fitted = split.apart, split.fitted
        notes.append(split.note)
    parted = {output: [part.key for part in found] for output, found in parts.items()}
    runs = evaluator.run(arrays, feeds)
    judged = JudgedValues.found(runs, parted) if behind else JudgedValues()
    reference = judged.of(runs)
    ignored = irreproducible(reference, judged.of(evaluator.run(arrays, feeds)))
    if ignored:
        notes.append(
            f"outputs {', '.join(ignored)} differ from run to run in the original already: "
            "they do not count"
        )
    notes += judged.notes
    baseline = 0.0
    if metric is not None:
        baseline = metric.score(partial(evaluator.outputs, arrays))
    return Prepared(
        evaluator,
        arrays,
        feeds,
        fitted,
        inputs.generated,
        without_padding(reference, feeds),
        judged,
        ignored,
        notes,
        PlainFitting(threads),
        metric,
        baseline,
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
