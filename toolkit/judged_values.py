# SPDX-License-Identifier: Apache-2.0
"""The values by which outputs are judged: themselves, their parts, or the scores behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.output_parts import BEFORE_SIGMOID
from toolkit.scores import ScoreKind, score_kinds, to_scores

LEAST_SCORE = 4.0
"""Root mean square of a score that errors are always measured against: a Sigmoid rises by at most
1/4, so that an error that lies so many dB below 4 moves the probability by no more than what lies
as many dB below 1."""

Runs = Sequence[Mapping[str, Any]]


@dataclass
class JudgedValues:
    """How runs become what is compared.

    Outputs named in ``parted`` give way to their parts, by the keys there; of ``kinds`` the scores
    behind the probabilities are taken. ``centres`` (float64, broadcastable) are taken away from
    parts that stand before a Sigmoid: what a class scores on average, mostly a bias, is no signal.
    As much of it is left as makes `LEAST_SCORE`, for inputs on which a score hardly moves.
    """

    parted: dict[str, list[str]] = field(default_factory=dict)
    kinds: dict[str, ScoreKind] = field(default_factory=dict)
    centres: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def found(
        cls, runs: Runs, parted: Mapping[str, Sequence[str]], raw: Collection[str] = ()
    ) -> JudgedValues:
        """What the original's runs ask for; they hold the parts in ``parted``. Outputs in ``raw``
        are no probabilities, whatever their values look like."""
        judged = cls({name: list(keys) for name, keys in parted.items()})
        runs = judged.of(runs)
        keys = {key for parts in parted.values() for key in parts}
        judged.kinds = {
            name: kind
            for name, kind in score_kinds(runs).items()
            if name not in raw
            and (name not in keys or (kind == "softmax" and not name.endswith(BEFORE_SIGMOID)))
        }
        for key in runs[0] if runs else ():
            if key.endswith(BEFORE_SIGMOID):
                judged.centres[key] = _centre([np.asarray(run[key]) for run in runs])
        return judged

    def of(self, runs: Runs) -> list[dict[str, Any]]:
        """The values to compare."""
        parts = [{n: v for n, v in run.items() if n not in self.parted} for run in runs]
        scores = to_scores(parts, self.kinds) if self.kinds else parts
        return [{name: self._centred(name, v) for name, v in run.items()} for run in scores]

    def _centred(self, name: str, value: Any) -> Any:
        centre = self.centres.get(name)
        if centre is None or not isinstance(value, np.ndarray) or value.ndim != centre.ndim:
            return value
        return (value - centre).astype(np.float32)

    @property
    def notes(self) -> list[str]:
        """What was decided, in words."""
        notes = [f"output {name} is judged by {_words(keys)}" for name, keys in self.parted.items()]
        if self.kinds:
            notes.append(
                f"outputs {', '.join(self.kinds)} are probabilities: "
                "the search compares the scores behind them"
            )
        return notes

    @property
    def text(self) -> str:
        """The outputs that are not judged by themselves; empty where all are."""
        said = [f"{', '.join(self.kinds)} as scores"] if self.kinds else []
        said += [f"{name} by {_words(keys)}" for name, keys in self.parted.items()]
        return " and ".join(said)


def _centre(values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """What to take away from each class, of the shape [1, classes, 1, ...]: classes are on axis 1
    or the last one, whichever is shorter."""
    ndim = values[0].ndim
    axes = [axis for axis in (1, ndim - 1) if 0 < axis < ndim]
    kept = min(axes, key=lambda axis: values[0].shape[axis], default=None)
    lengths = {value.shape[kept] for value in values if kept is not None}
    others = tuple(axis for axis in range(ndim) if len(lengths) != 1 or axis != kept)
    wide = [value.astype(np.float64) for value in values]
    total = np.asarray(sum(value.sum(others, keepdims=True) for value in wide))
    energy = np.asarray(sum(np.square(value).sum(others, keepdims=True) for value in wide))
    count = max(sum(value.size for value in values) / max(total.size, 1), 1)
    mean = total / count
    variance = np.maximum(energy / count - np.square(mean), 0.0)
    left = np.sqrt(np.maximum(LEAST_SCORE**2 - variance, 0.0))
    return np.asarray(np.sign(mean) * np.maximum(np.abs(mean) - left, 0.0))


def _words(keys: Sequence[str]) -> str:
    if len(keys) == 1:
        return "the scores before its Sigmoid"
    squashed = sum(key.endswith(BEFORE_SIGMOID) for key in keys)
    scores = f", {squashed} of them before a Sigmoid" if squashed else ""
    return f"each of its {len(keys)} parts{scores}"
