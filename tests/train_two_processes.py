# SPDX-License-Identifier: Apache-2.0
"""What test_train_distributed.py runs by torchrun: trains into the folder that it is given."""

from __future__ import annotations

import sys

import torch

from passes.schemes import Prune
from tests.train_tasks import digits_net, digits_task
from toolkit.nn import Latent, attach
from toolkit.train import EntropyPenalty, StagedPruning, Trainer


def squares(model: torch.nn.Module) -> torch.Tensor:
    return sum((p.square().sum() for p in model.parameters()), torch.zeros(()))


def latent_trainer(folder: str) -> Trainer:
    """Latents with the codec's rate, their averages, batch normalisation: state in buffers."""
    torch.set_num_threads(1)
    net = digits_net()
    net.insert(2, torch.nn.BatchNorm1d(32))
    attach(net[1], "weight", Latent((32, 64), ema_decay=0.9))
    return Trainer(
        net,
        digits_task(batch_size=40),
        [EntropyPenalty(1e-5)],
        epochs=2,
        optimizer={"name": "adam", "rate": 0.002},
        folder=folder,
        progress=False,
    )


def trainer(folder: str) -> Trainer:
    """Batches of 33 do not divide by two, and 1000 samples not by 33."""
    torch.set_num_threads(1)
    methods = [
        EntropyPenalty(1e-3, rate=squares),
        StagedPruning({"1.weight": Prune(sparsity=(0.3, 0.6))}, (1, 2)),
    ]
    return Trainer(
        digits_net(),
        digits_task(batch_size=33),
        methods,
        epochs=3,
        optimizer={"rate": 0.05},
        folder=folder,
        progress=False,
    )


if __name__ == "__main__":
    made = latent_trainer if "--latent" in sys.argv else trainer
    made(sys.argv[1]).fit()
