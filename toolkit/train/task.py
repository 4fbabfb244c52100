# SPDX-License-Identifier: Apache-2.0
"""What is learned: data in three parts, the loss, and the metric that models are selected by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from passes.errors import SchemeError
from toolkit.errors import InputError, one_line
from toolkit.train.distributed import World, sums
from toolkit.train.tensor_loader import Batch, Loader, TensorLoader, as_loader, move

Score = Callable[[Any, Any], torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Means over a data set."""

    loss: float
    metric: float


def first_of(batch: Batch) -> Any:
    """What a model is called with: the first tensor of a batch."""
    return batch if isinstance(batch, torch.Tensor) else batch[0]


def last_of(batch: Batch) -> Any:
    """What the outputs are compared with: the last tensor of a batch."""
    return batch if isinstance(batch, torch.Tensor) else batch[-1]


@dataclass(frozen=True)
class Task:
    """Data, loss and metric.

    Attributes:
        train, validation, test: Loaders, or iterables of batches with a length. Models are selected
            on ``validation``; ``test`` is looked at once, by `Trainer.test`.
        loss: (outputs, targets) -> losses [samples], or their mean [].
        metric: The same of what is reported and selected by.
        metric_name: For people.
        higher_is_better: Of the metric.
        call: (model, batch) -> outputs; the model is called with the first tensor of a batch.
        targets: batch -> targets; the last tensor of a batch.
    """

    train: Any
    validation: Any
    loss: Score
    metric: Score
    test: Any = None
    metric_name: str = "metric"
    higher_is_better: bool = True
    call: Callable[[Any, Batch], Any] | None = None
    targets: Callable[[Batch], Any] = last_of

    def outputs(self, model: Any, batch: Batch) -> Any:
        """What ``model`` makes of a batch."""
        return model(first_of(batch)) if self.call is None else self.call(model, batch)

    def prepared(self, seed: int, device: torch.device) -> Task:
        """The same task whose data are loaders, tensors on ``device``. Raises InputError for data
        that cannot be used."""
        parts: dict[str, Any] = {}
        for name in ("train", "validation", "test"):
            data = getattr(self, name)
            if data is None:
                if name != "test":
                    raise InputError(f"data: there is no {name} set")
                continue
            loader = as_loader(data, seed)
            parts[name] = loader.to(device) if isinstance(loader, TensorLoader) else loader
        return replace(self, **parts)

    def loss_of(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """The loss of each sample [samples], or their mean []."""
        return self.loss(outputs, self.targets(batch))

    def evaluate(
        self,
        model: Any,
        data: Loader,
        device: torch.device | None = None,
        world: World | None = None,
        precision: str = "float32",
    ) -> Evaluation:
        """Mean loss and metric of ``model`` in evaluation mode over all samples of ``data``."""
        world, device = world or World(), device or torch.device("cpu")
        was_training = model.training
        model.eval()
        total = [0.0, 0.0, 0.0]
        try:
            with torch.no_grad():
                for batch, share in data.batches(0, world=world):
                    found = self._scores(model, move(batch, device), device, precision)
                    number = len(first_of(batch)) if share else 0
                    total[0] += number * found[0]
                    total[1] += number * found[1]
                    total[2] += number
        finally:
            model.train(was_training)
        loss, metric, count = sums(total, device, world)
        return Evaluation(loss / count, metric / count)

    def _scores(
        self, model: Any, batch: Batch, device: torch.device, precision: str
    ) -> tuple[float, float]:
        """Mean loss and metric of a batch."""
        with autocast(device, precision):
            outputs = self.outputs(model, batch)
        targets = self.targets(batch)
        loss, metric = self.loss(outputs, targets), self.metric(outputs, targets)
        return float(loss.double().mean()), float(metric.double().mean())


def autocast(device: torch.device, precision: str) -> Any:
    """The context in which a model computes: bfloat16 where that is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of logits [samples, classes] (or [samples, steps, classes], the mean
    over steps) with int64 targets: [samples]."""
    if outputs.ndim == 2:
        return functional.cross_entropy(outputs.float(), targets, reduction="none")
    flat = functional.cross_entropy(
        outputs.float().flatten(0, -2), targets.flatten(), reduction="none"
    )
    return flat.view(targets.shape).flatten(1).mean(1)


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the largest logit of the last axis is the target's, else 0; [samples]."""
    right = (outputs.argmax(-1) == targets).float()
    return right if right.ndim == 1 else right.flatten(1).mean(1)


@contextmanager
def as_data_errors(what: str) -> Iterator[None]:
    """Turns what torch says of tensors that fit neither the model nor the loss into an InputError,
    which ``what`` begins."""
    try:
        yield
    except (InputError, SchemeError):
        raise
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{what}: model, loss and data do not fit: {one_line(error)}") from error


def classification(train: Any, validation: Any, test: Any = None, **options: Any) -> Task:
    """A task of classes: cross-entropy, selected by accuracy."""
    settings = {"loss": cross_entropy, "metric": accuracy, "metric_name": "accuracy", **options}
    return Task(train, validation, test=test, **settings)


def regression(train: Any, validation: Any, test: Any = None, **options: Any) -> Task:
    """A task of numbers: squared error, selected by it."""

    def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.float() - targets).square().flatten(1).mean(1)

    settings = {
        "loss": squared,
        "metric": squared,
        "metric_name": "squared error",
        "higher_is_better": False,
        **options,
    }
    return Task(train, validation, test=test, **settings)


def held_out(
    tensors: tuple[torch.Tensor, ...], count: int, seed: int = 0
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Divides samples at random: all but ``count`` to train with, ``count`` to validate with.

    Raises InputError where that would leave none on one side.
    """
    number = len(tensors[0])
    if not 0 < count < number:
        raise InputError(f"data: {count} of {number} samples cannot be held out for validation")
    order = torch.randperm(number, generator=torch.Generator().manual_seed(seed))
    kept, held = order[count:].sort().values, order[:count].sort().values
    return tuple(t[kept] for t in tensors), tuple(t[held] for t in tensors)
