# SPDX-License-Identifier: Apache-2.0
"""Forward and backward of one batch, in one process or, by DistributedDataParallel, in several.

All terms of the loss are computed inside of one module's forward, so that parameters which only a
callback's term uses are synchronised as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from toolkit.train.callback import StepContext
from toolkit.train.task import autocast

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class _LossModule(nn.Module):
    """The model and the modules of callbacks; its forward is the loss."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.model = trainer.model
        self.extra = nn.ModuleDict(
            {str(i): c.module for i, c in enumerate(trainer.callbacks) if c.module is not None}
        )
        self._trainer = [trainer]  # in a list, as it is no module
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, batch: Any, share: float) -> torch.Tensor:
        trainer = self._trainer[0]
        task, settings = trainer.task, trainer.settings
        with autocast(trainer.device, settings.precision):
            outputs = task.outputs(self.model, batch)
            losses = task.loss_of(outputs, batch)
            step = StepContext(batch, outputs, losses, {"task": losses.mean()})
            for callback in trainer.callbacks:
                callback.before_step(trainer, step)
        self.terms = {name: value.detach().float() * share for name, value in step.terms.items()}
        total: torch.Tensor = torch.stack([v.float() for v in step.terms.values()]).sum()
        return total * share


class Computation:
    """Gradients of the loss of a batch, averaged over processes."""

    def __init__(self, trainer: Trainer) -> None:
        self._module = _LossModule(trainer)
        self._run: nn.Module = self._module
        if trainer.world.size > 1:
            from torch.nn.parallel import DistributedDataParallel

            # Counters and symbols are equal in all processes, and gloo cannot send all their types.
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
                self._module,
                [n for n, b in self._module.named_buffers() if not b.is_floating_point()],
            )
            ids = [trainer.device.index] if trainer.device.type == "cuda" else None
            self._run = DistributedDataParallel(
                self._module, device_ids=ids, find_unused_parameters=True
            )

    def backward(self, batch: Any, share: float) -> dict[str, torch.Tensor]:
        """Adds to the gradients; returns the terms of the loss, detached.

        ``share`` weighs the batch in the mean over processes. As the shares' mean is 1, terms that
        are equal in all processes count once.
        """
        self._run(batch, share).backward()
        return self._module.terms
