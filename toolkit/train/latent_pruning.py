# SPDX-License-Identifier: Apache-2.0
"""Latents that go to zero at once where their bits are worth more than the loss they save.

An entropy penalty alone moves latents by its gradient, which takes many steps against the noise of
the data. Here the decision is made as in rate-distortion optimised quantisation, with the second
derivative of the loss in the place of the squared error: LeCun, Denker, Solla 1990, "Optimal brain
damage", section 2; by Fisher information: Theis et al. 2018, "Faster gaze prediction with dense
networks and Fisher pruning", section 2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from toolkit.errors import InputError
from toolkit.train.callback import Callback
from toolkit.train.entropy_penalty import EntropyPenalty

if TYPE_CHECKING:
    from toolkit.nn import Latent
    from toolkit.train.trainer import Trainer

_LEAST_GRADIENTS = 20
_FARTHEST = 8  # latents beyond are not thought about; what they do for the loss is worth more
_INSIDE = 0.49  # of a step: past a half, so that rounding finds the integer that is left


class LatentPruning(Callback):
    """Sets latents to zero where that is worth it; those at zero stay there.

    In place of its integer k zero costs a latent at p (in steps of size s), in nats per sample,
    F s^2 (p^2 - (p - k)^2) / 2, and saves what the trainer's `EntropyPenalty` asks for the bits
    between the two, by the slopes of the latent's own rate. F is the Fisher information, the
    samples of a batch times the variance of its gradient, measured along the way; what does not
    change from batch to batch, as the penalty's own gradient, is no part of it.

    Args:
        end: The epoch after which nothing is set to zero any more.
        start: The epoch of the first time.
        every: Steps between two times.
        decay: Of the running means of the gradients, from 0 to below 1.

    Raises:
        InputError: an option out of range; at the start: no penalty, no latent at all, or one whose
            decoder has an offset, so that zero is no integer.
    """

    def __init__(
        self,
        end: float,
        *,
        start: float = 0.0,
        every: int = 20,
        decay: float = 0.99,
    ) -> None:
        if not 0 <= start < end < math.inf:
            raise InputError(f"latent_pruning: expected 0 <= start < end, found {start} and {end}")
        if every < 1:
            raise InputError(f"latent_pruning: every: expected 1 or more, found {every}")
        if not 0 <= decay < 1:
            raise InputError(f"latent_pruning: decay: expected 0 to below 1, found {decay}")
        self.start, self.end = float(start), float(end)
        self.every, self.decay = every, decay
        self.zeros: dict[str, Tensor] = {}
        self._means: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._seen = 0
        self._penalty: EntropyPenalty

    def on_start(self, trainer: Trainer) -> None:
        """Finds the penalty and checks the latents. Raises InputError."""
        penalties = [c for c in trainer.callbacks if isinstance(c, EntropyPenalty)]
        if not penalties:
            raise InputError("latent_pruning: goes with an entropy penalty, and there is none")
        self._penalty = penalties[0]
        if not list(_latents(trainer)):
            raise InputError("latent_pruning: no weight of the model has a latent")
        for name, _, form in _latents(trainer):
            if getattr(form.decoder, "offset", None) is not None:
                raise InputError(f"latent_pruning: {name}: its decoder has an offset")

    def after_backward(self, trainer: Trainer) -> None:
        """Measures gradients."""
        if self._is_over(trainer):
            return
        for name, original, _ in _latents(trainer):
            if original.grad is None:
                continue
            gradient = original.grad.detach()
            if name not in self._means:
                self._means[name] = torch.zeros_like(gradient)
                self._squares[name] = torch.zeros_like(gradient)
            self._means[name].lerp_(gradient, 1 - self.decay)
            self._squares[name].lerp_(gradient.square(), 1 - self.decay)
        self._seen += 1

    def after_step(self, trainer: Trainer) -> None:
        """Decides where it is time, and holds latents at zero."""
        begun = trainer.step >= self.start * trainer.steps_per_epoch
        known = self._seen >= _LEAST_GRADIENTS and self._seen % self.every == 0
        if begun and known and not self._is_over(trainer):
            self.prune(trainer)
        with torch.no_grad():
            for name, original, _ in _latents(trainer):
                if name in self.zeros:
                    original.masked_fill_(self.zeros[name], 0.0)

    def prune(self, trainer: Trainer) -> None:
        """Decides about all latents, by what has been measured so far."""
        price = self._penalty.price(trainer)
        batch = trainer.num_samples / trainer.steps_per_epoch
        known = 1 - self.decay**self._seen
        for name, original, form in _latents(trainer):
            if name not in self._means:
                continue
            mean, square = self._means[name] / known, self._squares[name] / known
            fisher = batch * (square - mean.square()).clamp(min=0)
            with torch.no_grad():
                whole = form.decoder.positions(original).round()
                now = form.decoder.latent_of(form.decoder(whole))
                cost = fisher * (original.square() - (original - now).square()) / 2
                goes = (whole.abs() <= _FARTHEST) & (cost < price * _bits_above_zero(form, whole))
                self.zeros[name] = goes | (whole == 0)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Logs the share of latents that are held at zero."""
        count = sum(zeros.numel() for zeros in self.zeros.values())
        if count:
            record["zeros"] = sum(int(zeros.sum()) for zeros in self.zeros.values()) / count

    def is_selectable(self, trainer: Trainer) -> bool:
        """When all is decided."""
        return self._is_over(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What is held, and the means of the gradients."""
        return {
            "zeros": dict(self.zeros),
            "means": dict(self._means),
            "squares": dict(self._squares),
            "seen": self._seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.zeros, self._seen = state["zeros"], state["seen"]
        self._means, self._squares = state["means"], state["squares"]

    def _is_over(self, trainer: Trainer) -> bool:
        return trainer.step >= self.end * trainer.steps_per_epoch


def _latents(trainer: Trainer) -> list[tuple[str, Tensor, Latent]]:
    """Name, what is trained, and form of each latent."""
    from toolkit.nn import Latent, originals

    return [entry for entry in originals(trainer.model) if isinstance(entry[2], Latent)]


def _bits_above_zero(form: Latent, whole: Tensor) -> Tensor:
    """Bits of integers, up to the farthest one that counts, less those of zero."""
    found = torch.zeros_like(whole)
    for level in range(1, 1 + int(whole.abs().max().clamp(max=_FARTHEST))):
        reached = whole.abs().clamp(max=level)
        between = (whole.sign() * (reached - _INSIDE)).requires_grad_()
        with torch.enable_grad():
            (slopes,) = torch.autograd.grad(form.bits(between), between)
        found += torch.where(reached == level, slopes * whole.sign(), 0.0)
    return found
