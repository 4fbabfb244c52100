# SPDX-License-Identifier: Apache-2.0
"""Statistics of batch normalisation measured anew with the final weights.

Running means are those of the weights that were trained. Where others are left in the end, as by
`LC` or an average of latents, they are off. Izmailov et al. 2018, "Averaging weights leads to wider
optima and better generalization", section 3.2, measure them anew for averaged weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from toolkit.errors import InputError
from toolkit.train.callback import Callback
from toolkit.train.task import as_data_errors, autocast
from toolkit.train.tensor_loader import move

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class BatchNormStatistics(Callback):
    """Where the model is evaluated, and at the end, running means and variances are the plain mean
    over some training batches, with all else as in evaluation.

    It acts in the order of the callbacks, so it stands behind the method that puts other weights
    in. Every process measures the same batches, those of the first epoch.

    Args:
        batches: How many; all, where the data have fewer.

    Raises:
        InputError: less than one; at the start: the model has no batch normalisation with running
            statistics.
    """

    def __init__(self, batches: int = 100) -> None:
        if batches < 1:
            raise InputError(f"batch_norm_statistics: batches: expected 1 or more, found {batches}")
        self.batches = batches

    def on_start(self, trainer: Trainer) -> None:
        """Checks that there is something to measure."""
        if not _layers(trainer.model):
            raise InputError(
                "batch_norm_statistics: the model has no batch normalisation with running "
                "statistics"
            )

    @contextmanager
    def evaluating(self, trainer: Trainer) -> Iterator[None]:
        """With the statistics of the weights that are evaluated."""
        buffers = [buffer for layer in _layers(trainer.model) for buffer in layer.buffers()]
        kept = [buffer.clone() for buffer in buffers]
        self.measure(trainer)
        try:
            yield
        finally:
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)

    def on_end(self, trainer: Trainer) -> None:
        """Measures for good."""
        self.measure(trainer)

    def measure(self, trainer: Trainer) -> None:
        """Statistics of the model with the weights that it has."""
        model, layers = trainer.model, _layers(trainer.model)
        was_training, momenta = model.training, [layer.momentum for layer in layers]
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
            layer.train()
        try:
            with torch.no_grad(), as_data_errors("data: for batch normalisation"):
                for place, (batch, _) in enumerate(trainer.task.train.batches(0), 1):
                    with autocast(trainer.device, trainer.settings.precision):
                        trainer.task.outputs(model, move(batch, trainer.device))
                    if place == self.batches:
                        break
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
            model.train(was_training)


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
