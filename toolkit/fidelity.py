# SPDX-License-Identifier: Apache-2.0
"""Fidelity: how close the outputs of a model are to those of the original, slice by slice.

A figure over a whole output hides outputs that died (a detector whose class scores are all zero
still scores a cosine of 0.9997), so every channel and every last-axis slice of each output is
judged on its own as well, against its own signal.

The figure that drives a search is `Fidelity.sqnr_db`: the signal-to-quantisation-noise ratio of
each output over all feeds, the lowest of all outputs. `Fidelity.healthy` is the guard beside it:
no slice which carried signal is dead or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.flat_outputs import Outputs, flatten
from toolkit.output_sums import OutputSums, add_floats
from toolkit.slices import SLICE_FLOOR_DB, SliceFidelity, decibel

AGREEMENT_FLOOR = 0.5
"""Least agreement of integer, boolean or string outputs beside float ones."""


@dataclass
class OutputFidelity:
    """Fidelity of one output over all feeds.

    `sqnr_db` is `inf` where the output is exact and `-inf` where it lost all meaning (other shape,
    new non-finite values, signal out of nothing). `max_relative_error` is the largest absolute
    error divided by the largest magnitude of the original output. `agreement` is the share of
    equal elements. `top1_agreement` is the share of equal positions of the largest value of the
    last axis, None where the output does not look like scores.
    """

    name: str
    kind: str
    num_values: int
    sqnr_db: float
    max_abs_error: float
    max_relative_error: float
    cosine: float
    agreement: float
    top1_agreement: float | None = None
    worst_slices: list[SliceFidelity] = field(default_factory=list)
    dead_slices: int = 0
    problem: str = ""

    @property
    def exact(self) -> bool:
        return self.agreement == 1.0 and not self.problem


@dataclass
class Fidelity:
    """Fidelity of a whole model.

    `sqnr_db` is the least over the outputs that count; `ignored` names outputs left out of it (the
    original itself does not repeat them from run to run). `healthy` is False where a slice that
    carried signal is dead or wrong; `problems` says in words which. `score` is the user's metric,
    where there is one.
    """

    outputs: list[OutputFidelity]
    sqnr_db: float
    max_relative_error: float
    healthy: bool
    problems: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    score: float | None = None

    @property
    def worst_slice(self) -> SliceFidelity | None:
        """The slice with the lowest SQNR of all judged slices, None where all are exact."""
        found = [s for output in self.outputs for s in output.worst_slices]
        return min(found, key=lambda s: s.sqnr_db, default=None)

    @property
    def exact(self) -> bool:
        """Whether every output equals the original's bit for bit."""
        return all(output.exact for output in self.outputs)

    @property
    def cosine(self) -> float:
        """Lowest cosine of the float outputs, 1 where there are none."""
        return min((o.cosine for o in self.outputs if o.kind == "float"), default=1.0)

    @property
    def top1_agreement(self) -> float | None:
        """Lowest top-1 agreement of the outputs that look like scores, None without any."""
        return min(
            (o.top1_agreement for o in self.outputs if o.top1_agreement is not None), default=None
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; infinities stay floats."""
        values = asdict(self)
        worst = self.worst_slice
        values["worst_slice"] = asdict(worst) if worst else None
        values["cosine"], values["top1_agreement"] = self.cosine, self.top1_agreement
        values["exact"] = self.exact
        return values


def compare_outputs(
    original: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    ignored: Sequence[str] = (),
) -> Fidelity:
    """Fidelity of `found` to `original`: one mapping from output name to value per feed.

    Values are what onnxruntime returns: arrays, lists (sequences) and dicts (maps) of them.
    Outputs named in `ignored` are reported, but do not count. Raises `ValueError` when the numbers
    of feeds differ.
    """
    if len(original) != len(found):
        raise ValueError(f"{len(found)} runs compared with {len(original)} runs")
    sums: dict[str, OutputSums] = {}
    for before, after in zip(original, found, strict=True):
        _add_run(sums, flatten(before), flatten(after))
    return _summary({name: _finish(name, entry) for name, entry in sums.items()}, ignored)


def _add_run(sums: dict[str, OutputSums], before: Outputs, after: Outputs) -> None:
    for name, value in before.items():
        kind = _kind(value)
        entry = sums.setdefault(name, OutputSums(kind))
        if name not in after:
            entry.problem = "missing"
        elif after[name].shape != value.shape:
            entry.problem = f"shape {list(after[name].shape)}, expected {list(value.shape)}"
        elif kind == "float":
            add_floats(entry, value, after[name])
        else:
            entry.count += value.size
            entry.equal += int(np.count_nonzero(np.asarray(value == after[name])))
    for name, value in after.items():
        if name not in before:
            sums.setdefault(name, OutputSums(_kind(value))).problem = "not in the original"


def _kind(value: npt.NDArray[Any]) -> str:
    if value.dtype.kind in "fcV":
        return "float"
    return {"b": "bool", "i": "int", "u": "int"}.get(value.dtype.kind, "text")


def _finish(name: str, entry: OutputSums) -> OutputFidelity:
    agreement = entry.equal / entry.count if entry.count else 1.0
    if entry.problem:
        sqnr = -math.inf
    elif entry.kind == "float":
        sqnr = decibel(entry.signal, entry.noise)
    else:
        sqnr = decibel(1.0, (1.0 - agreement) ** 2)
    norm = math.sqrt(entry.signal) * math.sqrt(entry.other)
    cosine = min(entry.dot / norm, 1.0) if norm else float(entry.signal == entry.other)
    if entry.kind == "float" and not entry.noise and not entry.problem:
        cosine = 1.0
    judged = not entry.problem and entry.kind == "float"
    worst, dead = entry.slices.judge(name) if judged else ([], 0)
    top1 = None
    if entry.kind == "float" and entry.top1_possible and entry.top1_count:
        top1 = entry.top1_equal / entry.top1_count
    if entry.peak:
        relative = entry.max_error / entry.peak
    else:
        relative = math.inf if entry.max_error or entry.problem else 0.0
    return OutputFidelity(
        name,
        entry.kind,
        entry.count,
        sqnr,
        entry.max_error,
        math.inf if entry.problem else relative,
        cosine,
        agreement,
        top1,
        worst,
        dead,
        entry.problem,
    )


def _summary(outputs: dict[str, OutputFidelity], ignored: Sequence[str]) -> Fidelity:
    counted = [o for o in outputs.values() if o.name not in ignored]
    floats = [o for o in counted if o.kind == "float"]
    driving = floats or counted
    problems = [f"output {o.name}: {o.problem}" for o in counted if o.problem]
    for output in floats:
        if output.dead_slices:
            worst = output.worst_slices[0]
            problems.append(
                f"output {output.name}: {output.dead_slices} slices that carried signal are lost, "
                f"first {worst.label} at {worst.sqnr_db:.1f} dB (floor {SLICE_FLOOR_DB:g} dB)"
            )
    if floats:
        problems += [
            f"output {o.name}: only {o.agreement:.1%} of its {o.kind} values are unchanged"
            for o in counted
            if o.kind != "float" and o.agreement < AGREEMENT_FLOOR and not o.problem
        ]
    return Fidelity(
        list(outputs.values()),
        min((o.sqnr_db for o in driving), default=math.inf),
        max((o.max_relative_error for o in floats), default=0.0),
        not problems,
        problems,
        [name for name in ignored if name in outputs],
    )
