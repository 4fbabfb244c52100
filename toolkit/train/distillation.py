# SPDX-License-Identifier: Apache-2.0
"""Distillation: a student learns from what a teacher makes of the same samples.

Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2; mixing and
choice of samples as in Polino, Pascanu, Alistarh 2018, "Model compression via distillation and
quantization", section 3.2; features: Romero et al. 2015, "FitNets", section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from toolkit.errors import InputError
from toolkit.train.callback import Callback, StepContext
from toolkit.train.feature_matching import FeatureMatching
from toolkit.train.tensor_loader import Batch

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer

Ask = Literal["always", "uncertain", "wrong"]


class Distillation(Callback):
    """Mixes the loss of the data with the divergence from a teacher.

    For samples that the teacher is asked about the loss is
    alpha * T^2 * KL(teacher || student, both at temperature T) + (1 - alpha) * the task's loss, for
    others the task's loss. The divergence is summed over classes and averaged over samples (and
    over the steps of a sequence). It adds a term, so it goes with every other method.

    Args:
        teacher: A module, or a function of a batch, that gives logits [samples, ..., classes]. It
            is not trained.
        temperature: T, above 0.
        alpha: 0 to 1.
        ask: ``always``; ``uncertain``: where the entropy of the student's prediction exceeds
            ``threshold`` nats; ``wrong``: where the student's prediction is not the target.
        threshold: For ``uncertain``.
        features: Names of modules, student's -> teacher's, whose outputs are matched as well.
        feature_weight: What the squared difference of features counts (`FeatureMatching`).

    Raises:
        InputError: options out of range.
    """

    def __init__(
        self,
        teacher: nn.Module | Callable[[Batch], torch.Tensor],
        *,
        temperature: float = 2.0,
        alpha: float = 0.7,
        ask: Ask = "always",
        threshold: float = 0.5,
        features: Mapping[str, str] | None = None,
        feature_weight: float = 1.0,
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise InputError(f"distillation: temperature: expected above 0, found {temperature}")
        if not 0 <= alpha <= 1:
            raise InputError(f"distillation: alpha: expected 0 to 1, found {alpha}")
        if ask not in get_args(Ask):
            raise InputError(
                f"distillation: ask: expected one of {', '.join(get_args(Ask))}, found {ask!r}"
            )
        if features and not isinstance(teacher, nn.Module):
            raise InputError("distillation: features need a teacher that is a module")
        self.teacher, self.temperature, self.alpha = teacher, temperature, alpha
        self.ask, self.threshold = ask, threshold
        self._features: FeatureMatching | None = None
        if features:
            self._features = FeatureMatching(features, feature_weight)
        self._asked = [0, 0]

    def on_start(self, trainer: Trainer) -> None:
        """Brings the teacher to the device, frozen, and makes what adapts features."""
        if isinstance(self.teacher, nn.Module):
            self.teacher.to(trainer.device).eval().requires_grad_(False)
            if self._features is not None:
                self.module = self._features.prepare(trainer, self.teacher)

    def before_step(self, trainer: Trainer, step: StepContext) -> None:
        """Replaces the task's term by the mixture and adds the divergence."""
        losses = step.sample_losses
        asked = self._chosen(trainer, step)
        batch = step.batch
        student: torch.Tensor = step.outputs
        if asked is not None:
            if losses.ndim == 0:
                raise InputError(f"distillation: ask {self.ask} needs a loss for each sample")
            step.terms["task"] = (losses * (1 - self.alpha * asked.to(losses.dtype))).mean()
            rows = asked.nonzero().flatten()
            self._asked = [self._asked[0] + len(rows), self._asked[1] + len(asked)]
            if len(rows) == 0 and self._features is None:
                step.terms["distillation"] = 0 * step.terms["task"]
                return
            if self._features is None:
                batch, student = _rows(batch, rows), student[rows]
        else:
            step.terms["task"] = (1 - self.alpha) * step.terms["task"]
        with torch.no_grad():
            logits = self._told(trainer, batch)
        if logits.shape != student.shape:
            raise InputError(
                f"distillation: the teacher gives {list(logits.shape)}, the student "
                f"{list(student.shape)}"
            )
        found = divergence(student, logits, self.temperature)
        if asked is not None and self._features is not None:
            found = found[rows]
        share = 1.0 if asked is None else len(found) / len(asked)
        mean = found.mean() if len(found) else found.sum()
        step.terms["distillation"] = self.alpha * self.temperature**2 * share * mean
        if self._features is not None:
            step.terms["features"] = self._features.loss()

    def _told(self, trainer: Trainer, batch: Batch) -> torch.Tensor:
        """The teacher's logits."""
        if isinstance(self.teacher, nn.Module):
            logits: torch.Tensor = trainer.task.outputs(self.teacher, batch)
            return logits
        return self.teacher(batch)

    def _chosen(self, trainer: Trainer, step: StepContext) -> torch.Tensor | None:
        """bool [samples]: about which the teacher is asked; None for all."""
        if self.ask == "always":
            return None
        logits = step.outputs.detach().float()
        if self.ask == "uncertain":
            log = functional.log_softmax(logits, -1)
            entropy = -(log.exp() * log).sum(-1)
            return (entropy.flatten(1).mean(1) if entropy.ndim > 1 else entropy) > self.threshold
        wrong = logits.argmax(-1) != trainer.task.targets(step.batch)
        return wrong.flatten(1).any(1) if wrong.ndim > 1 else wrong

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Logs the share of samples that the teacher was asked about."""
        if self._asked[1]:
            record["asked"] = self._asked[0] / self._asked[1]
        self._asked = [0, 0]

    def state_dict(self) -> dict[str, Any]:
        """What has been counted in this epoch."""
        return {"asked": list(self._asked)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self._asked = list(state["asked"])


def divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """KL(teacher || student) in nats of logits [samples, ..., classes] at a temperature, summed
    over classes, averaged over all axes but the first: [samples]."""
    told = functional.log_softmax(teacher.float() / temperature, -1)
    found = functional.log_softmax(student.float() / temperature, -1)
    nats = (told.exp() * (told - found)).sum(-1)
    return nats.flatten(1).mean(1) if nats.ndim > 1 else nats


def _rows(batch: Batch, rows: torch.Tensor) -> Batch:
    """The samples of a batch that are asked about."""
    if isinstance(batch, torch.Tensor):
        return batch[rows]
    if isinstance(batch, dict):
        return {key: value[rows] for key, value in batch.items()}
    return tuple(part[rows] for part in batch)
