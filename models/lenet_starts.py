# SPDX-License-Identifier: Apache-2.0
"""LeNets after some epochs of ordinary training, from which compression starts."""

from __future__ import annotations

import torch
from torch import nn

from models.architectures.lenet import lenet_5_caffe, lenet_300_100
from models.data.splits import Splits
from models.lenet_latents import plain_optimizer, start
from models.mnist_recipes import digits_logits, train_digits
from models.recipe import Run
from toolkit.nn import keep_units, strongest_units
from toolkit.train import OptimizerSettings

LC_OPTIMIZER = OptimizerSettings(name="sgd", rate=0.1, momentum=0.9)
_LENET5_WIDTHS = {"conv1": 8, "conv2": 20, "ip1": 100}


def lenet300_plain(run: Run, splits: Splits) -> nn.Module:
    """LeNet-300-100 after ten epochs without a teacher."""
    model = lenet_300_100()
    train_digits(
        run,
        splits,
        None,
        model,
        [],
        stage="start",
        epochs=2 if run.quick else 10,
        batch_size=256,
        optimizer=LC_OPTIMIZER,
    )
    return model


def lenet300_for_latents(run: Run, splits: Splits) -> nn.Sequential:
    """LeNet-300-100 after five epochs with a teacher."""
    model = lenet_300_100()
    start(model)
    train_digits(
        run,
        splits,
        digits_logits(run, splits),
        model,
        [],
        stage="start",
        epochs=1 if run.quick else 5,
        batch_size=512,
        optimizer=plain_optimizer(),
        schedule="constant",
    )
    return model


def lenet5_for_latents(run: Run, splits: Splits) -> nn.Sequential:
    """LeNet-5 after two epochs with a teacher, its strongest filters and units, and two epochs
    more."""
    model = lenet_5_caffe()
    start(model)
    logits = digits_logits(run, splits)
    model = model.to(memory_format=torch.channels_last)
    for stage, widths in (("start", _LENET5_WIDTHS), ("narrow start", {})):
        train_digits(
            run,
            splits,
            logits,
            model,
            [],
            stage=stage,
            epochs=1 if run.quick else 2,
            batch_size=256,
            optimizer=plain_optimizer(),
            schedule="constant",
        )
        keep_units(model, strongest_units(model, widths))
    return model
