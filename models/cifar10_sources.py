# SPDX-License-Identifier: Apache-2.0
"""What recipes of `toolkit train` for CIFAR-10 name: images, the trained student and its teacher.

With ``made_up`` images take the place of CIFAR-10, for trying a recipe without any data. Networks
are a function of torch's seed, which `toolkit train` sets to the recipe's.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import nn

from models.cifar10_methods import load
from models.cifar10_training import task, trained
from models.data.splits import Splits
from models.recipe import Run
from toolkit.train import Task, TensorLoader


@functools.cache
def _images(made_up: bool) -> Splits:
    return load(Run(0, made_up, {}))


def images(made_up: bool = False, seed: int = 0) -> Task:
    """Images shifted and flipped, in batches of 128."""
    splits = _images(made_up)
    test = TensorLoader(splits.test.inputs, splits.test.labels, batch_size=500)
    return dataclasses.replace(task(Run(seed, made_up, {}), splits), test=test)


def student(made_up: bool = False) -> nn.Module:
    """The network that is compressed, trained."""
    return _trained("student", made_up)


def teacher(made_up: bool = False) -> nn.Module:
    """The larger network, trained."""
    return _trained("teacher", made_up)


def _trained(kind: str, made_up: bool) -> nn.Module:
    return trained(kind, Run(torch.initial_seed() % 2**31, made_up, {}), _images(made_up))
