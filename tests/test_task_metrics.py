# SPDX-License-Identifier: Apache-2.0
"""Measures of quality that are built in, and what goes wrong with their labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import toolkit
from tests.toolkit_models import embedding, mlp
from toolkit.errors import InputError
from toolkit.task_metrics import BoundMetric, TaskMetric, task_metric

Feed = dict[str, np.ndarray]


def giving(outputs: list[np.ndarray]) -> Callable[[Feed], dict[str, Any]]:
    queue = list(outputs)
    return lambda feed: {"labels": np.zeros(1, np.int64), "y": queue.pop(0)}


def bound(text: str, labels: list[Any], feeds: list[Feed] | None = None) -> BoundMetric:
    arrays = [np.asarray(part) for part in labels]
    return BoundMetric(text, feeds or [{}] * len(arrays), arrays, [])


def test_top1() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)
    lost = np.array([[np.nan, 1.0]], np.float32)
    assert bound("top1", [[1, 0, 0], [1]]).score(giving([scores, lost])) == 0.5
    with pytest.raises(InputError, match="labels of shape .2. do not belong to scores of shape"):
        bound("top1", [[1, 0]]).score(giving([scores]))


def test_cosine_leaves_padding_out() -> None:
    before = np.array([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [9.0, 9.0]]], np.float32)
    after = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [7.0, 1.0]]], np.float32)
    feed = {"mask": np.array([[1, 1], [1, 0]])}
    metric = BoundMetric("cosine", [feed], [], [{"y": before}])
    assert metric.score(giving([after])) == pytest.approx(0.5)
    assert metric.score(giving([np.full_like(before, np.nan)])) == 0.0


def test_auc_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60).astype(np.float32)
    pairs = scores[truth == 1][:, None] - scores[truth == 0]
    area = float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    halves = [scores[:20, None], scores[20:, None]]
    assert bound("auc", [truth[:20], truth[20:]]).score(giving(halves)) == pytest.approx(area)
    both = np.stack([-scores, scores], 1)
    assert bound("auc", [truth]).score(giving([both])) == pytest.approx(area)
    with pytest.raises(InputError, match="auc needs both zeros and others"):
        bound("auc", [np.ones(60, int)]).score(giving([scores]))


def test_perplexity_of_a_uniform_guess_is_the_vocabulary() -> None:
    feed = {
        "ids": np.arange(8).reshape(2, 4),
        "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }
    metric = bound("perplexity", [[]], [feed])
    assert metric.score(giving([np.zeros((2, 4, 9), np.float32)])) == pytest.approx(-9.0)
    sure = np.zeros((2, 4, 9), np.float32)
    sure[0, [0, 1, 2], [1, 2, 3]] = 50
    sure[1, 0, 5] = 50
    assert metric.score(giving([sure])) == pytest.approx(-1.0)
    with pytest.raises(InputError, match="no input of tokens belongs to an output of shape"):
        metric.score(giving([np.zeros((2, 9), np.float32)]))


def test_labels_are_divided_as_the_feeds_are() -> None:
    pieces = [{"x": np.zeros((3, 2))}, {"x": np.zeros((2, 2))}]
    parts = TaskMetric("top1", np.arange(5)).labels_of(pieces)
    assert [list(part) for part in parts] == [[0, 1, 2], [3, 4]]
    for count in (4, 6):
        with pytest.raises(InputError, match=f"--labels: holds {count} labels, .* has 5 samples"):
            TaskMetric("top1", np.arange(count)).labels_of(pieces)
    parts = TaskMetric("top1", np.arange(9)).labels_of(pieces, truncated=True)
    assert [list(part) for part in parts] == [[0, 1, 2], [3, 4]]


def test_labels_that_cannot_be_used(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.full(3, 0.5))
    np.savez(tmp_path / "two.npz", a=np.zeros(3, int), b=np.zeros(3, int))
    for name, message in (("floats", "expected whole numbers"), ("two", "holds 2 arrays")):
        [path] = tmp_path.glob(f"{name}.np?")
        with pytest.raises(InputError, match=message):
            task_metric("top1", path)
    with pytest.raises(InputError, match=r"--labels .*absent.npy: is no readable"):
        task_metric("top1", tmp_path / "absent.npy")
    with pytest.raises(InputError, match="--metric top1: give the right answers by --labels"):
        toolkit.compress(mlp(tmp_path / "m.onnx"), metric="top1", max_drop=0.1)
    with pytest.raises(InputError, match="--metric cosine takes none"):
        toolkit.compress(tmp_path / "m.onnx", metric="cosine", max_drop=0.1, calibration="c.npz",
                         labels=tmp_path / "floats.npy")  # fmt: skip


def test_compress_keeps_accuracy_on_data_kept_apart(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=192)
    x = np.random.default_rng(0).standard_normal((800, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    labels = np.asarray(session.run(None, {"x": x})[0]).argmax(1)
    labels[::10] = 0  # so that the original is not always right
    np.savez(tmp_path / "x.npz", x=x)
    np.save(tmp_path / "l.npy", labels)
    given = {"metric": "top1", "labels": tmp_path / "l.npy", "calibration": tmp_path / "x.npz"}
    report = toolkit.compress(model, tmp_path / "o.onnx", max_drop="5%", **given)  # type: ignore[arg-type]
    assert report.reached and report.fidelity.score is not None
    assert report.fidelity.score >= 0.95 * 0.9 - 0.05
    assert any(note.startswith("metric top1: ") for note in report.notes)
    assert "--metric top1 --labels" in report.command
    np.save(tmp_path / "l.npy", labels[:-1])
    with pytest.raises(InputError, match="holds 799 labels, the calibration data has 800 samples"):
        toolkit.compress(model, max_drop="5%", **given)  # type: ignore[arg-type]


def drop_one_percent(model: Path, x: np.ndarray, labels: np.ndarray) -> None:
    """Compresses with top-1 accuracy on these samples as the metric."""
    data, right = model.with_name("x.npz"), model.with_name("l.npy")
    np.savez(data, x=x)
    np.save(right, labels)
    toolkit.compress(model, metric="top1", max_drop="1%", calibration=data, labels=right)


@pytest.mark.parametrize("wrong", [-1, 16])
def test_labels_that_are_no_class_are_named(tmp_path: Path, wrong: int) -> None:
    model, x = mlp(tmp_path / "m.onnx"), np.zeros((40, 64), np.float32)
    labels = np.arange(40) % 16
    labels[::2] = wrong
    with pytest.raises(InputError, match=f"top1 needs classes from 0 to 15, found {wrong}"):
        drop_one_percent(model, x, labels)


def test_a_share_of_nothing_is_refused(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((80, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    labels = np.asarray(session.run(None, {"x": x})[0]).argmin(1)  # always wrong
    with pytest.raises(InputError, match="--max-drop: the original's metric is 0"):
        drop_one_percent(model, x, labels)


def test_cosine_as_a_target_with_made_up_inputs(tmp_path: Path) -> None:
    report = toolkit.compress(embedding(tmp_path / "m.onnx"), metric="cosine", max_drop=0.01)
    assert report.reached and report.fidelity.score is not None
    assert 0.99 <= report.fidelity.score < 0.9999
    assert any("no calibration data" in note for note in report.notes)


def test_a_metric_of_few_samples_says_so(tmp_path: Path) -> None:
    """24 of 192 samples have the last word: one of them is 4 %."""
    model, rng = mlp(tmp_path / "m.onnx"), np.random.default_rng(4)
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((192, 64)).astype(np.float32))
    [output] = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(
        None, dict(np.load(tmp_path / "x.npz"))
    )
    np.save(tmp_path / "y.npy", output.argmax(-1))
    options: dict[str, Any] = {"calibration": tmp_path / "x.npz", "dry_run": True}
    tight = toolkit.compress(
        model, metric="top1", labels=tmp_path / "y.npy", max_drop="1%", **options
    )
    [note] = [note for note in tight.notes if "top1 is measured on 24 results" in note]
    assert "one of them is 0.042, more than the 0.01 that may be lost" in note
    agreeing = toolkit.compress(model, min_agreement=0.97, **options)
    assert any("agreement is measured on 24 results" in note for note in agreeing.notes)
    loose = toolkit.compress(model, min_agreement=0.9, **options)
    assert not any("is measured on 24 results" in note for note in loose.notes)
