# SPDX-License-Identifier: Apache-2.0
"""Measures of quality that are built in: top-1 with labels, cosine, AUC and perplexity."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.calibration_split import samples_of
from toolkit.errors import InputError, one_line
from toolkit.metrics import RunFeed
from toolkit.padding import without_padding

NEED_LABELS = frozenset({"top1", "auc"})
NAMES = ("top1", "cosine", "auc", "perplexity")
SMALLEST_PROBABILITY = 1e-30

Array = npt.NDArray[Any]
Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class TaskMetric:
    """A built-in measure. `labels`, one entry for each sample of the calibration data, in its
    order, for those that need them."""

    text: str
    labels: Array | None = None

    def bound(self, feeds: Sequence[Feed], labels: Sequence[Array], runs: Sequence[Outputs]) -> Any:
        """The measure on `feeds`, with the labels of each and what the original gives for it."""
        return BoundMetric(self.text, list(feeds), list(labels), list(runs))

    def labels_of(self, pieces: Sequence[Feed], truncated: bool = False) -> list[Array]:
        """The labels of each piece of the calibration data, in order; empty arrays where there are
        none. Raises `InputError` where there are more or fewer labels than samples; more are
        right where the data was `truncated`."""
        if self.labels is None:
            return [np.zeros(0)] * len(pieces)
        sizes = [samples_of(piece) for piece in pieces]
        total, given = sum(sizes), len(self.labels)
        if given < total or given > total and not truncated:
            raise InputError(
                f"--labels: holds {given} labels, the calibration data has {total} samples"
            )
        return np.split(self.labels[:total], np.cumsum(sizes)[:-1])


@dataclass(frozen=True)
class BoundMetric:
    """A built-in measure on given data; `runs` is what the original gives for each feed."""

    text: str
    feeds: list[Feed]
    labels: list[Array]
    runs: list[Outputs]

    def score(self, run: RunFeed) -> float:
        """The quality of the model behind `run`, more of which is better: a share, a cosine, an
        area, or the negative perplexity. Lost outputs count as the worst there is. Raises
        `InputError` where outputs or labels do not suit the measure."""
        outputs = [run(feed) for feed in self.feeds]
        return _MEASURES[self.text](self, outputs)


def task_metric(text: str, labels: str | os.PathLike[str] | None) -> TaskMetric:
    """The built-in measure of that name, with the labels of a file. Raises `InputError`."""
    if text in NEED_LABELS and labels is None:
        raise InputError(f"--metric {text}: give the right answers by --labels")
    if text not in NEED_LABELS and labels is not None:
        raise InputError(f"--labels: --metric {text} takes none")
    return TaskMetric(text, None if labels is None else read_labels(Path(labels)))


def read_labels(path: Path) -> Array:
    """Labels of an .npy file, or an .npz file of one array. Raises `InputError`."""
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            with found as archive:
                if len(archive.files) != 1:
                    raise InputError(
                        f"--labels {path}: holds {len(archive.files)} arrays, expected one"
                    )
                found = archive[archive.files[0]]
    except InputError:
        raise
    except Exception as error:  # numpy raises many kinds
        raise InputError(
            f"--labels {path}: is no readable .npy or .npz file ({one_line(error)})"
        ) from error
    labels = np.asarray(found)
    whole = labels.dtype.kind == "f" and np.isfinite(labels).all()
    if whole and np.array_equal(labels, np.rint(labels)):  # as losses want them
        labels = labels.astype(np.int64)
    if labels.ndim == 0 or labels.dtype.kind not in "iub":
        raise InputError(
            f"--labels {path}: expected whole numbers, one or more for each sample, found "
            f"{labels.dtype} of shape {list(labels.shape)}"
        )
    return labels


def _first_float(metric: str, outputs: Outputs) -> Array:
    for value in outputs.values():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return value
    raise InputError(f"--metric {metric}: the model has no output of floats")


def _top1(metric: BoundMetric, outputs: Sequence[Outputs]) -> float:
    """Share of positions whose largest value of the first float output is at the label."""
    right = total = 0
    for found, labels in zip(outputs, metric.labels, strict=True):
        scores = _first_float("top1", found)
        if scores.ndim < 2 or scores.shape[:-1] != labels.shape:
            raise InputError(
                f"--metric top1: labels of shape {list(labels.shape)} do not belong to scores of "
                f"shape {list(scores.shape)}"
            )
        classes = scores.shape[-1]
        if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise InputError(
                f"--labels: top1 needs classes from 0 to {classes - 1}, found {int(wrong)}"
            )
        finite = np.isfinite(scores).all(-1)
        right += int(np.count_nonzero((scores.argmax(-1) == labels) & finite))
        total += labels.size
    return right / max(total, 1)


def _cosine(metric: BoundMetric, outputs: Sequence[Outputs]) -> float:
    """Mean cosine of each sample's first float output to the original's, padding left out."""
    cosines: list[float] = []
    pairs = zip(
        without_padding(metric.runs, metric.feeds),
        without_padding(outputs, metric.feeds),
        strict=True,
    )
    for before, after in pairs:
        first, second = (
            _first_float("cosine", part).astype(np.float64) for part in (before, after)
        )
        rows = max(len(first), 1) if first.ndim > 1 else 1
        a = first.reshape(rows, -1)
        b = np.nan_to_num(second.reshape(rows, -1), posinf=0, neginf=0)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        dots = np.einsum("rf,rf->r", a, b)
        cosines += list(np.where(norms > 0, dots / np.where(norms > 0, norms, 1), 0.0))
    return float(np.mean(cosines)) if cosines else 0.0


def _auc(metric: BoundMetric, outputs: Sequence[Outputs]) -> float:
    """Area under the receiver operating characteristic of the first float output, its last column
    where there are two; ties count half."""
    from scipy.stats import rankdata

    scores: list[Array] = []
    truths: list[Array] = []
    for found, labels in zip(outputs, metric.labels, strict=True):
        values = _first_float("auc", found)
        values = values[..., 1] if values.ndim > 1 and values.shape[-1] == 2 else values
        if values.size != labels.size:
            raise InputError(
                f"--metric auc: labels of shape {list(labels.shape)} do not belong to scores of "
                f"shape {list(values.shape)}"
            )
        scores.append(np.nan_to_num(values.reshape(-1).astype(np.float64)))
        truths.append(labels.reshape(-1) != 0)
    truth = np.concatenate(truths)
    positive = int(np.count_nonzero(truth))
    if positive in (0, truth.size):
        raise InputError(
            "--labels: auc needs both zeros and others in the data that is measured on, found "
            f"{positive} of {truth.size} that are not zero"
        )
    ranks = rankdata(np.concatenate(scores))
    area = ranks[truth].sum() - positive * (positive + 1) / 2
    return float(area / (positive * (truth.size - positive)))


def _perplexity(metric: BoundMetric, outputs: Sequence[Outputs]) -> float:
    """Minus the perplexity of each next token: scores [batch, sequence, tokens] of the first float
    output against the integer input of that shape, padding left out."""
    total, count = 0.0, 0
    for found, feed in zip(outputs, metric.feeds, strict=True):
        scores = _first_float("perplexity", found)
        tokens, mask = _tokens(feed, scores.shape)
        logits = scores[:, :-1].astype(np.float64)
        logits = logits - logits.max(-1, keepdims=True)
        normal = np.log(np.exp(logits).sum(-1))
        chosen = np.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
        losses = np.nan_to_num(normal - chosen, nan=-np.log(SMALLEST_PROBABILITY))
        kept = mask[:, 1:] & mask[:, :-1]
        total, count = total + float(losses[kept].sum()), count + int(np.count_nonzero(kept))
    if not count:
        raise InputError("--metric perplexity: no sequence of two tokens to measure on")
    return -float(np.exp(min(total / count, 700.0)))


def _tokens(feed: Feed, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The tokens of a feed and which of them are no padding, both [batch, sequence]."""
    fitting = {
        name: array
        for name, array in feed.items()
        if array.dtype.kind in "iub" and len(shape) == 3 and array.shape == shape[:2]
    }
    masks = [array != 0 for name, array in fitting.items() if "mask" in name.lower()]
    given = [array for name, array in fitting.items() if "mask" not in name.lower()]
    inside = [a for a in given if a.size and int(a.min()) >= 0 and int(a.max()) < shape[-1]]
    if not inside:
        raise InputError(
            f"--metric perplexity: no input of tokens belongs to an output of shape {list(shape)}, "
            "expected scores [batch, sequence, tokens]"
        )
    mask = masks[0] if masks else np.ones(shape[:2], np.bool_)
    return inside[0], mask


_MEASURES: dict[str, Callable[[BoundMetric, Sequence[Outputs]], float]] = {
    "top1": _top1,
    "cosine": _cosine,
    "auc": _auc,
    "perplexity": _perplexity,
}
