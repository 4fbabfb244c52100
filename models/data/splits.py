# SPDX-License-Identifier: Apache-2.0
"""Labelled data in three parts; the test part is for the end of a run only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Samples and their labels.

    Attributes:
        inputs: [n, ...].
        labels: int64 [n].
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} samples have {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | slice) -> Part:
        """The samples at ``index``."""
        return Part(self.inputs[index], self.labels[index])


@dataclass(frozen=True)
class Splits:
    """``train`` to fit, ``validation`` to choose, ``test`` to look at once."""

    train: Part
    validation: Part
    test: Part


def hold_out(train: Part, test: Part, validation: int, seed: int) -> Splits:
    """Takes ``validation`` samples, chosen by ``seed``, out of ``train``; their order is random.

    Raises:
        ValueError: there are not more samples than these.
    """
    if not 0 <= validation < len(train):
        raise ValueError(f"{validation} samples for validation, expected 0 to {len(train) - 1}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    kept, held = order[: len(train) - validation], order[len(train) - validation :]
    return Splits(train.take(kept), train.take(held), test)
