# SPDX-License-Identifier: Apache-2.0
"""The places in the loop where a method can act."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from passes.schemes import Parameters
from toolkit.train.tensor_loader import Batch

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


@dataclass
class StepContext:
    """One step of training, between forward and backward.

    Attributes:
        batch: As the loader gave it, on the device.
        outputs: What the model made of it.
        sample_losses: The task's losses [samples], or their mean [].
        terms: What is added up to the loss: ``task`` and what callbacks put beside it. A callback
            may also replace or scale what is there.
    """

    batch: Batch
    outputs: Any
    sample_losses: torch.Tensor
    terms: dict[str, torch.Tensor]


class Callback:
    """A method: it does nothing where it overrides nothing.

    Attributes:
        name: Of its state in checkpoints, and for reports; unique among those of a trainer.
        module: Parameters that are trained, and saved, beside the model's.
    """

    name: str = ""
    module: nn.Module | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step, or before the state of a checkpoint is loaded: prepares the model
        and ``module``. The optimizer does not exist yet."""

    def on_resume(self, trainer: Trainer) -> None:
        """After the state of a checkpoint has been loaded."""

    def learning_rate(self, trainer: Trainer, rate: float) -> float:
        """The rate of the next step, given that of the schedule."""
        return rate

    def before_forward(self, trainer: Trainer) -> None:
        """Before the model computes a batch."""

    def before_step(self, trainer: Trainer, step: StepContext) -> None:
        """Before the gradient is taken: adds to ``step.terms``."""

    def after_backward(self, trainer: Trainer) -> None:
        """When gradients are there, before the optimizer uses them."""

    def after_step(self, trainer: Trainer) -> None:
        """When the optimizer has changed the weights."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """After the last step of an epoch, before evaluation; numbers put into ``record`` are
        logged."""

    def after_evaluation(self, trainer: Trainer, record: dict[str, float]) -> None:
        """When the metric on validation data is in ``record``."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last step, when the selected state is loaded: leaves the final weights."""

    @contextmanager
    def evaluating(self, trainer: Trainer) -> Iterator[None]:
        """While the model is evaluated, or saved as the best one: puts compressed weights in."""
        yield

    def is_selectable(self, trainer: Trainer) -> bool:
        """Whether the model as it is now may be the result."""
        return True

    def rank(self, trainer: Trainer, metric: float) -> float | None:
        """What the selected state has most of, in place of the metric; None for no opinion."""
        return None

    def parameters(self) -> dict[str, Parameters]:
        """Parameter name -> the fitted scheme that decodes to it, for sizes and for export."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What must be known to go on: tensors, arrays, numbers, texts, parameters of schemes, in
        dictionaries, lists and tuples. ``module`` is saved without it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
