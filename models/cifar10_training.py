# SPDX-License-Identifier: Apache-2.0
"""What the methods of `models.cifar10_methods` share: the network, the larger teacher, and how they
are trained on CIFAR-10. Both are trained once for each seed and kept in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from models.architectures.layer_string import layer_string_net
from models.data.augment import flip, shift
from models.data.loaders import augmented_task
from models.data.splits import Splits
from models.fetch import cache_folder
from models.recipe import Run
from toolkit.train import (
    Callback,
    OptimizerSettings,
    ScheduleSettings,
    Task,
    Trainer,
)

STUDENT = "16c3-mp-32c3*2-mp-64c3-mp-dp-128fc"
TEACHER = "32c3-mp-64c3*2-mp-128c3*2-mp-dp-256fc"
_EPOCHS = {"student": 16, "teacher": 12}
_BATCH = 128
_RATE = 3e-3


def student() -> nn.Sequential:
    """Four convolutions with batch normalisation and two dense layers; 165,610 parameters."""
    return _net(STUDENT)


def teacher() -> nn.Sequential:
    """Five convolutions and two dense layers, 805,706 parameters."""
    return _net(TEACHER)


def _net(layers: str) -> nn.Sequential:
    return layer_string_net(layers).to(memory_format=torch.channels_last)


def trained(kind: str, run: Run, splits: Splits) -> nn.Module:
    """The trained ``student`` or ``teacher``; from the cache folder where it is there, which also
    holds the checkpoint of a run that was interrupted."""
    torch.manual_seed(run.seed)
    model = student() if kind == "student" else teacher()
    if run.quick:
        fit(run, splits, model, [], 2)
        return model
    net = STUDENT if kind == "student" else TEACHER
    digest = hashlib.sha256(f"{net} {_EPOCHS[kind]} {_BATCH} {_RATE}".encode())
    digest.update(splits.train.labels.numpy().tobytes())
    folder = cache_folder() / "cifar10" / f"{kind}-{run.seed}-{digest.hexdigest()[:12]}"
    fit(run, splits, model, [], _EPOCHS[kind], folder=folder)
    return model


def fit(
    run: Run,
    splits: Splits,
    model: nn.Module,
    callbacks: Sequence[Callback],
    epochs: int,
    *,
    rate: float = _RATE,
    rate_factors: Mapping[str, float] | None = None,
    folder: Path | None = None,
) -> None:
    """Trains ``model`` in place with shifts by up to four pixels and flips, in bfloat16.

    Args:
        run: Its seed.
        splits: The train part trains; the validation part is watched.
        model: Of 32x32 images.
        callbacks: The method.
        epochs: Of training; the last state is taken.
        rate: Of Adam; falls by half a cosine.
        rate_factors: Of some parameters, by glob pattern.
        folder: Of checkpoints; goes on with those that are there.
    """
    Trainer(
        model,
        task(run, splits),
        callbacks,
        epochs=epochs,
        optimizer=OptimizerSettings(name="adam", rate=rate, rate_factors=dict(rate_factors or {})),
        schedule=ScheduleSettings(name="cosine", last=0.01),
        seed=run.seed,
        select="last",
        precision="bf16",
        folder=folder,
    ).fit(resume=True)


def task(run: Run, splits: Splits) -> Task:
    """Classification of the parts to train and to validate with."""
    return augmented_task(splits, _BATCH, _augmented, run.seed)


def _augmented(images: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    return flip(shift(images, 4, chance), chance)
