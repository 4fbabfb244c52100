# SPDX-License-Identifier: Apache-2.0
"""Digits moved by a pixel, together with what a teacher says of each move.

A teacher is larger than its student; its logits for the nine moves are computed once, so that an
epoch of distillation takes no longer than one without.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.data.splits import Part
from toolkit.train import TensorLoader
from toolkit.train.distributed import World

MOVES = 9


def moved(padded: Tensor, move: int) -> Tensor:
    """Images [n, c, h + 2, w + 2] less their border, by one of nine moves: [n, c, h, w]."""
    top, left = divmod(move, 3)
    height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
    return padded[..., top : top + height, left : left + width]


def logits_of_moves(teacher: nn.Module, images: Tensor) -> Tensor:
    """What ``teacher``, computed in bfloat16, says of each image [n, c, h, w] in each move:
    float16 [n, 9, classes]."""
    teacher.eval()
    padded = functional.pad(images, (1, 1, 1, 1))
    found = []
    with torch.no_grad():
        for part in padded.split(500):
            with torch.autocast("cpu", torch.bfloat16):
                each = [teacher(moved(part, move).contiguous()) for move in range(MOVES)]
            found.append(torch.stack(each, 1).half())
    return torch.cat(found)


class ShiftedDigits(TensorLoader):
    """Batches (images, teacher's logits, labels), shuffled, each image moved at random.

    Args:
        part: Images and labels.
        logits: Of `logits_of_moves`.
        batch_size: Samples of a batch.
        seed: Of order and moves.
        still: Share of the images that are not moved, beside those whose random move is none.
    """

    def __init__(
        self, part: Part, logits: Tensor, batch_size: int, seed: int = 0, still: float = 0.2
    ) -> None:
        padded = functional.pad(part.inputs, (1, 1, 1, 1))
        super().__init__(
            padded,
            logits,
            part.labels,
            batch_size=batch_size,
            shuffle=True,
            seed=seed,
            drop_last=True,
        )
        self.still = still

    def with_tensors(self, *tensors: Tensor) -> ShiftedDigits:
        other = copy.copy(self)
        other.tensors, other.num_samples = tensors, len(tensors[0])
        return other

    def batches(
        self, epoch: int, first: int = 0, world: World | None = None
    ) -> Iterator[tuple[tuple[Tensor, ...], float]]:
        """As `TensorLoader.batches`."""
        found = super().batches(epoch, first, world)
        for number, ((padded, logits, labels), share) in enumerate(found, first):
            place = (self.seed * 1_000_003 + epoch) * 100_003 + number
            chance = torch.Generator().manual_seed(place % 2**63)
            moves = torch.randint(0, MOVES, (len(labels),), generator=chance)
            moves[torch.rand(len(labels), generator=chance) < self.still] = MOVES // 2
            images = torch.empty_like(moved(padded, 0))
            for move in range(MOVES):
                chosen = (moves == move).nonzero().flatten()
                images[chosen] = moved(padded[chosen], move)
            told = logits[torch.arange(len(labels)), moves.to(logits.device)].float()
            yield (images, told, labels), share


def told_by_teacher(batch: tuple[Tensor, ...]) -> Tensor:
    """The teacher's logits of a batch of `ShiftedDigits`."""
    return batch[1]
