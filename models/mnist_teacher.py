# SPDX-License-Identifier: Apache-2.0
"""The teacher of the MNIST recipes: a small convolutional network that is trained once and kept.

Five 3x3 convolutions with batch normalisation; about 0.6 % of digits wrong. Takes three minutes
on one core with bfloat16 instructions, its logits of all digits in all moves by a pixel included.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import sys

import numpy as np
import torch
from torch import Tensor, nn

from models.data.augment import shift
from models.data.splits import Splits
from models.fetch import cache_folder, write_atomically
from models.shifted_digits import logits_of_moves

_EPOCHS, _BATCH, _RATE = 8, 256, 3e-3


def teacher_net() -> nn.Sequential:
    """1-16-32-32-64-64 channels, then dropout and a dense layer; 107,642 parameters."""
    parts: list[nn.Module] = []
    inputs = 1
    for outputs, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        parts += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*parts, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * 49, 10))


def teacher_logits(splits: Splits, epochs: int = _EPOCHS, keep: bool = True) -> Tensor:
    """The teacher's logits of the training part in all moves, float16 [n, 9, 10].

    Args:
        splits: Data; the test part is not looked at.
        epochs: Of its training.
        keep: Keep them in the cache folder, under a name that follows from the data and this code.
    """
    if not keep:
        return _trained(splits, epochs)
    digest = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode())
    digest.update(f"{epochs}".encode())
    digest.update(splits.train.labels.numpy().tobytes())
    path = cache_folder() / "teachers" / f"mnist-{digest.hexdigest()[:12]}.npz"
    if not path.exists():
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, logits=_trained(splits, epochs).numpy())
        write_atomically(path, buffer.getvalue())
    with np.load(path) as stored:
        return torch.from_numpy(stored["logits"])


def _trained(splits: Splits, epochs: int) -> Tensor:
    from models.data.loaders import augmented_task
    from toolkit.train import OptimizerSettings, ScheduleSettings, Trainer

    torch.manual_seed(0)
    model = teacher_net().to(memory_format=torch.channels_last)
    Trainer(
        model,
        augmented_task(splits, _BATCH, functools.partial(_shifted, pixels=2)),
        epochs=epochs,
        optimizer=OptimizerSettings(name="adamw", rate=_RATE, weight_decay=1e-2),
        schedule=ScheduleSettings(name="cosine", warmup=0.2 * epochs),
        select="last",
        precision="bf16",
    ).fit()
    return logits_of_moves(model, splits.train.inputs)


def _shifted(images: Tensor, chance: torch.Generator, pixels: int) -> Tensor:
    return shift(images, pixels, chance)
