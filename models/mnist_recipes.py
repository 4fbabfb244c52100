# SPDX-License-Identifier: Apache-2.0
"""What the recipes for MNIST share: data, teacher, and training with the teacher's help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.data.made_up import made_up_images
from models.data.mnist import mnist
from models.data.splits import Splits
from models.mnist_teacher import teacher_logits
from models.recipe import Run
from models.shifted_digits import MOVES, ShiftedDigits, told_by_teacher
from toolkit.train import (
    Callback,
    Distillation,
    OptimizerSettings,
    ScheduleSettings,
    TensorLoader,
    Trainer,
    classification,
)

QUICK_IMAGES = 1024


def load_digits(run: Run) -> Splits:
    """MNIST, 5,000 of the training digits held out; made-up images where the run is quick."""
    return made_up_images(QUICK_IMAGES, 1, 28) if run.quick else mnist()


def digits_logits(run: Run, splits: Splits) -> Tensor:
    """The teacher's logits of the training part in all moves, float16 [n, 9, 10]."""
    return teacher_logits(splits, 2, keep=False) if run.quick else teacher_logits(splits)


def train_digits(
    run: Run,
    splits: Splits,
    logits: Tensor | None,
    model: nn.Module,
    callbacks: Sequence[Callback],
    *,
    stage: str,
    epochs: int,
    batch_size: int,
    optimizer: OptimizerSettings,
    alpha: float = 0.7,
    select: Literal["best", "last"] = "last",
    schedule: Literal["constant", "cosine"] = "cosine",
) -> None:
    """Trains ``model`` in place, on digits moved by up to a pixel.

    Args:
        run: Seed, and whether to take two epochs only.
        splits: Of `load_digits`.
        logits: Of `digits_logits`; None to train without a teacher.
        model: Any of 28x28 digits.
        callbacks: The method.
        stage: What this training is called among those of the run; it goes on where it was
            interrupted.
        epochs: Of training.
        batch_size: Samples of a batch.
        optimizer: Its rate falls by half a cosine.
        alpha: Share of the teacher in the loss (temperature 2).
        select: Take the "last" state or the "best" one on validation data.
        schedule: Of the rate.
    """
    told = torch.zeros(len(splits.train), MOVES, 0) if logits is None else logits
    train = ShiftedDigits(splits.train, told, 64 if run.quick else batch_size, run.seed)
    validation = TensorLoader(splits.validation.inputs, splits.validation.labels, batch_size=500)
    teacher = [] if logits is None else [Distillation(told_by_teacher, alpha=alpha)]
    Trainer(
        model,
        classification(train, validation),
        [*callbacks, *teacher],
        epochs=epochs,
        optimizer=optimizer,
        schedule=ScheduleSettings(name=schedule, last=0.02),
        seed=run.seed,
        select=select,
        folder=run.checkpoints(stage),
    ).fit(resume=True)
