# SPDX-License-Identifier: Apache-2.0
"""What recipes of `toolkit train` for MNIST name: data, the teacher, and networks to start from.

With ``made_up`` images take the place of MNIST, for trying a recipe without any data. Networks are
a function of torch's seed, which `toolkit train` sets to the recipe's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.architectures.lenet import lenet_5_caffe, lenet_300_100
from models.data.splits import Splits
from models.lenet_starts import lenet5_for_latents, lenet300_for_latents, lenet300_plain
from models.mnist_recipes import digits_logits, load_digits
from models.recipe import Run
from models.shifted_digits import MOVES, ShiftedDigits, told_by_teacher
from toolkit.train import Task, TensorLoader, classification
from toolkit.train.tensor_loader import Batch

Start = Callable[[Run, Splits], nn.Module]
_STARTS: dict[str, Start] = {
    "lenet300_plain": lenet300_plain,
    "lenet300_for_latents": lenet300_for_latents,
    "lenet5_for_latents": lenet5_for_latents,
}


@functools.cache
def _digits(made_up: bool) -> Splits:
    return load_digits(Run(0, made_up, {}))


def digits(
    batch_size: int = 256, taught: bool = False, made_up: bool = False, seed: int = 0
) -> Task:
    """Digits moved by up to a pixel, each batch with what the teacher says if it is ``taught``."""
    splits = _digits(made_up)
    logits = torch.zeros(len(splits.train), MOVES, 0)
    if taught:
        logits = digits_logits(Run(0, made_up, {}), splits)
    train = ShiftedDigits(splits.train, logits, min(batch_size, len(splits.train)), seed)
    validation, test = (
        TensorLoader(part.inputs, part.labels, batch_size=500)
        for part in (splits.validation, splits.test)
    )
    return classification(train, validation, test)


def teacher() -> Callable[[Batch], Tensor]:
    """What tells of a batch of taught `digits` what the teacher said of it."""
    return told_by_teacher


def network(start: str, made_up: bool = False) -> nn.Module:
    """A network to start from: ``lenet300``, ``lenet5``, untrained; or one of `models.lenet_starts`
    by its name, trained by this call."""
    if start in ("lenet300", "lenet5"):
        return lenet_300_100() if start == "lenet300" else lenet_5_caffe()
    if start not in _STARTS:
        raise ValueError(f"expected lenet300, lenet5 or one of {', '.join(_STARTS)}")
    return _STARTS[start](Run(torch.initial_seed() % 2**31, made_up, {}), _digits(made_up))
