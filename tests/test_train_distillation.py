# SPDX-License-Identifier: Apache-2.0
"""Distillation against computations by hand, and inside of other methods."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from passes.schemes import Prune
from tests.train_tasks import digits_net, digits_task
from toolkit.errors import InputError
from toolkit.train import (
    Callback,
    DeepCompression,
    Distillation,
    StepContext,
    Task,
    TensorLoader,
    Trainer,
    classification,
    divergence,
    sequence_task,
)

OPTIONS: dict[str, Any] = {"epochs": 1, "optimizer": {"rate": 0.1}, "progress": False}


class Watch(Callback):
    """Keeps the terms of the last step."""

    def before_step(self, trainer: Trainer, step: StepContext) -> None:
        self.terms = {name: float(value.detach()) for name, value in step.terms.items()}
        self.losses = step.sample_losses.detach().clone()


class Logits(nn.Module):
    """Gives logits that are parameters, whatever comes in."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float32))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.values[batch.long()]


def softmax(values: list[float], temperature: float) -> np.ndarray:
    powers = np.exp(np.array(values) / temperature)
    return powers / powers.sum()


def fixed_task(labels: list[int]) -> Task:
    count = len(labels)
    data = TensorLoader(torch.arange(count), torch.tensor(labels), batch_size=count)
    return classification(data, data)


STUDENT = [[1.0, 2.0, 0.5], [3.0, -1.0, 0.0], [0.1, 0.0, 0.0]]
TEACHER = [[0.0, 2.5, -0.5], [1.0, 1.0, 0.0], [2.0, 0.0, -1.0]]
LABELS = [1, 1, 2]


def terms(**options: Any) -> tuple[dict[str, float], list[float], list[float]]:
    watch = Watch()
    teacher = Logits(TEACHER)
    methods = [Distillation(teacher, **options), watch]
    Trainer(Logits(STUDENT), fixed_task(LABELS), methods, **OPTIONS).fit()
    assert torch.equal(teacher.values, torch.tensor(TEACHER))
    heat = options.get("temperature", 2.0)
    nats = []
    for student, told in zip(STUDENT, TEACHER, strict=True):
        p, q = softmax(told, heat), softmax(student, heat)
        nats.append(float(np.sum(p * np.log(p / q))))
    losses = [-math.log(softmax(s, 1)[label]) for s, label in zip(STUDENT, LABELS, strict=True)]
    return watch.terms, nats, losses


@pytest.mark.parametrize(("temperature", "alpha"), [(2.0, 0.7), (1.0, 1.0), (5.0, 0.25)])
def test_the_mixture_by_hand(temperature: float, alpha: float) -> None:
    """The divergence is not divided by the number of classes."""
    found, nats, losses = terms(temperature=temperature, alpha=alpha)
    assert found["distillation"] == pytest.approx(alpha * temperature**2 * np.mean(nats), rel=1e-5)
    assert found["task"] == pytest.approx((1 - alpha) * np.mean(losses), rel=1e-5)


def test_asked_where_the_student_is_wrong_or_uncertain() -> None:
    found, nats, losses = terms(ask="wrong", alpha=0.6)  # right, wrong, wrong
    expected = 0.6 * 4 * (nats[1] + nats[2]) / 3
    assert found["distillation"] == pytest.approx(expected, rel=1e-5)
    task = (losses[0] + 0.4 * (losses[1] + losses[2])) / 3
    assert found["task"] == pytest.approx(task, rel=1e-5)
    entropies = [-float(np.sum(p * np.log(p))) for p in (softmax(s, 1) for s in STUDENT)]
    threshold = (max(entropies) + sorted(entropies)[1]) / 2
    found, nats, losses = terms(ask="uncertain", threshold=threshold, alpha=0.6)
    assert entropies[2] == max(entropies)
    assert found["distillation"] == pytest.approx(0.6 * 4 * nats[2] / 3, rel=1e-5)
    found, _, losses = terms(ask="uncertain", threshold=10.0)
    assert found["distillation"] == 0
    assert found["task"] == pytest.approx(float(np.mean(losses)), rel=1e-5)


def test_the_teacher_is_only_asked_about_what_is_chosen() -> None:
    sizes = []

    def teacher(batch: Any) -> torch.Tensor:
        sizes.append(len(batch[0]))
        return torch.tensor(TEACHER)[batch[0]]

    method = Distillation(teacher, ask="wrong")
    result = Trainer(Logits(STUDENT), fixed_task(LABELS), [method], **OPTIONS).fit()
    assert sizes == [2] and result.history[0]["asked"] == pytest.approx(2 / 3)


def test_the_gradient_of_the_divergence() -> None:
    student = torch.tensor(STUDENT, dtype=torch.float32, requires_grad=True)
    divergence(student, torch.tensor(TEACHER), 3.0).sum().backward()
    for row, (s, t) in enumerate(zip(STUDENT, TEACHER, strict=True)):
        expected = (softmax(s, 3.0) - softmax(t, 3.0)) / 3.0
        np.testing.assert_allclose(student.grad[row].numpy(), expected, rtol=1e-4)
    steps = torch.tensor(STUDENT)[None].expand(4, 3, 3)
    told = torch.tensor(TEACHER)[None].expand(4, 3, 3)
    mean = divergence(torch.tensor(STUDENT), torch.tensor(TEACHER), 3.0).mean()
    torch.testing.assert_close(divergence(steps, told, 3.0), mean.expand(4))


def taught(alpha: float, seed: int) -> float:
    """Accuracy of a student that sees few labels, of a teacher that saw many."""
    teacher = digits_net(seed=9, hidden=64)
    Trainer(
        teacher, digits_task(train=3000), epochs=12, optimizer={"rate": 0.1}, progress=False
    ).fit()
    task = digits_task(train=100, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = task.train.tensors
    noisy = torch.where(
        torch.rand(len(labels), generator=generator) < 0.3,
        torch.randint(0, 10, (len(labels),), generator=generator),
        labels,
    )
    task = classification(
        TensorLoader(images, noisy, batch_size=20, shuffle=True), task.validation, task.test
    )
    student = digits_net(seed=seed, hidden=16)
    methods = [Distillation(teacher, alpha=alpha, temperature=2.0)]
    trainer = Trainer(student, task, methods, epochs=20, optimizer={"rate": 0.05}, progress=False)
    return trainer.fit().metric


def test_a_teacher_helps_where_labels_are_few_and_wrong() -> None:
    assert taught(0.9, 1) > taught(0.0, 1) + 0.03


def test_features_are_matched_through_a_learned_map(tmp_path: Path) -> None:
    teacher = digits_net(seed=3, hidden=48)
    method = Distillation(teacher, features={"2": "2"}, feature_weight=0.5)
    trainer = Trainer(digits_net(), digits_task(), [method], folder=tmp_path, **OPTIONS)
    trainer.fit()
    assert method.module is not None
    sizes = [tuple(p.shape) for p in method.module.parameters()]
    assert sizes == [(48, 32), (48,)]
    history = trainer.history
    assert history[0]["loss.features"] > 0
    images = torch.cat([digits_task().train.tensors[0][:8], torch.zeros(2, 1, 8, 8)])
    nets = []
    for channels in (4, 6):
        nets.append(nn.Sequential(nn.Conv2d(1, channels, 3), nn.ReLU(), nn.Flatten()))
        nets[-1].append(nn.LazyLinear(10))
        nets[-1](images)
    method = Distillation(nets[1], features={"1": "0"})
    long = Trainer(nets[0], digits_task(), [method], **{**OPTIONS, "epochs": 4}).fit().history
    assert long[-1]["loss.features"] < long[0]["loss.features"]


def test_distillation_inside_of_another_method() -> None:
    methods = [
        Distillation(digits_net(seed=3)),
        DeepCompression({"*.weight": Prune(sparsity=0.7)}),
    ]
    trainer = Trainer(digits_net(), digits_task(), methods, **OPTIONS)
    history = trainer.fit().history
    assert {"loss.task", "loss.distillation"} <= set(history[0])
    assert (trainer.model[1].weight == 0).float().mean() > 0.69


def test_sequences_of_the_teacher_become_targets() -> None:
    sources = torch.arange(12).view(6, 2)
    data = TensorLoader(sources, torch.zeros(6, 3, dtype=torch.int64), batch_size=4, shuffle=True)
    task = classification(data, data)

    def write(batch: Any) -> tuple[torch.Tensor, ...]:
        return batch[0], batch[0].sum(1, keepdim=True).expand(-1, 3)

    found = sequence_task(task, write)
    assert torch.equal(found.train.tensors[0], sources)
    assert torch.equal(found.train.tensors[1][:, 0], sources.sum(1))
    assert found.train.shuffle and found.validation is data

    def ragged(batch: Any) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(len(batch[0]), len(batch[0])),)

    with pytest.raises(InputError, match="do not fit together"):
        sequence_task(task, ragged)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0}, "temperature"),
        ({"alpha": 1.5}, "alpha"),
        ({"ask": "never"}, "ask: expected one of always, uncertain, wrong"),
        ({"features": {"nothing": "2"}}, "student has no module 'nothing'"),
        ({"features": {"2": "3"}}, None),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str | None) -> None:
    if words is None:
        Trainer(
            digits_net(), digits_task(), [Distillation(digits_net(), **options)], **OPTIONS
        ).fit()
        return
    with pytest.raises(InputError, match=words):
        Trainer(
            digits_net(), digits_task(), [Distillation(digits_net(), **options)], **OPTIONS
        ).fit()


def test_a_teacher_of_other_classes() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(InputError, match=r"teacher gives \[50, 7\], the student \[50, 10\]"):
        Trainer(digits_net(), digits_task(), [Distillation(teacher)], **OPTIONS).fit()
