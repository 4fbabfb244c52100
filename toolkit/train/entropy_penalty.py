# SPDX-License-Identifier: Apache-2.0
"""Entropy penalised training: the loss and the bits that the weights take when coded.

Oktay, Ballé, Singh, Shrivastava 2020, "Scalable model compression by entropy penalized
reparameterization", section 2. The rate is the total number of bits of the model, so that a bit
costs the same in every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from toolkit.errors import InputError
from toolkit.train.callback import Callback, StepContext

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer

Rate = Callable[[nn.Module], torch.Tensor]


class EntropyPenalty(Callback):
    """Adds ``multiplier`` * bits to the loss, and the loss that fits the quantiles of factorised
    priors, where there are any.

    The loss of the data is a mean over samples, so the multiplier is in nats per sample and bit:
    with ln 2 / samples a bit of the model weighs as much as a bit of all training labels (the
    minimum description length); useful ones are larger.

    Args:
        multiplier: lambda, nats per bit.
        warmup: Epochs over which it rises linearly from zero.
        rate: model -> total bits, a differentiable scalar; `toolkit.nn.rate_bits` where None.
        averages: Whether to keep averages of the latents (`toolkit.nn.update_averages`).

    Raises:
        InputError: a multiplier or warmup below zero.
    """

    def __init__(
        self,
        multiplier: float,
        *,
        warmup: float = 0.0,
        rate: Rate | None = None,
        averages: bool = True,
    ) -> None:
        for name, value in (("multiplier", multiplier), ("warmup", warmup)):
            if not 0 <= value < float("inf"):
                raise InputError(f"entropy_penalty: {name}: expected 0 or more, found {value}")
        self.multiplier, self.warmup = multiplier, warmup
        self._rate, self._averages = rate, averages and rate is None
        self._bits: torch.Tensor | None = None
        self._has_priors = False

    def on_start(self, trainer: Trainer) -> None:
        """Checks that there is something to penalise."""
        if self._rate is None:
            from toolkit.nn import FactorizedPrior, parametrizations

            modules = trainer.model.modules()
            self._has_priors = any(isinstance(module, FactorizedPrior) for module in modules)
            if not list(parametrizations(trainer.model)):
                raise InputError(
                    "entropy_penalty: no weight of the model is compressed; wrap it with a recipe "
                    "first"
                )

    def before_step(self, trainer: Trainer, step: StepContext) -> None:
        """Adds the rate."""
        bits = self.bits(trainer.model)
        self._bits = bits.detach()
        step.terms["rate"] = self.price(trainer) * bits
        if self._has_priors:
            from toolkit.nn import auxiliary_loss

            step.terms["auxiliary"] = auxiliary_loss(trainer.model)

    def price(self, trainer: Trainer) -> float:
        """Nats per bit at this step."""
        if not self.warmup:
            return self.multiplier
        return self.multiplier * min(trainer.step / (self.warmup * trainer.steps_per_epoch), 1.0)

    def bits(self, model: nn.Module) -> torch.Tensor:
        """Total bits of ``model`` as the penalty counts them."""
        if self._rate is not None:
            return self._rate(model)
        from toolkit.nn import rate_bits

        found: torch.Tensor = rate_bits(model)
        return found

    def after_step(self, trainer: Trainer) -> None:
        """Moves the averages."""
        if self._averages:
            from toolkit.nn import update_averages

            update_averages(trainer.model)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Logs the bits of the last step and the multiplier."""
        if self._bits is not None:
            record["bits"] = float(self._bits)
        record["multiplier"] = self.multiplier

    def is_selectable(self, trainer: Trainer) -> bool:
        """Not while the penalty still rises."""
        return trainer.step >= self.warmup * trainer.steps_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """The multiplier, which a controller may have changed, and the last bits."""
        return {"multiplier": self.multiplier, "bits": self._bits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.multiplier, self._bits = state["multiplier"], state["bits"]
