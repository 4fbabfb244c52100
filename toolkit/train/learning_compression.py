# SPDX-License-Identifier: Apache-2.0
"""The Learning-Compression algorithm: min L(w) subject to w = decode(theta).

Carreira-Perpiñán 2017, "Model compression as constrained optimization, with application to neural
nets. Part I: general framework", Fig. 2; joint and additive compressions: Idelbayev and
Carreira-Perpiñán 2020, "A flexible, extensible software framework for model compression based on
the LC algorithm".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from passes.schemes import Parameters
from toolkit.errors import InputError
from toolkit.train.callback import Callback
from toolkit.train.compressions import CompressionPlan, Rules, layer_positions
from toolkit.train.tensor_loader import move
from toolkit.train.weight_arrays import array_of, parameter_of, put, tensor_of

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class LC(Callback):
    """Alternates learning steps, training towards what the compression makes of the weights, with
    compression steps, fits of the schemes, while the pull mu_k = ``mu`` * ``growth``^k rises.

    The learning rate is capped at 1 / mu. The steps of the trainer are divided among ``steps``
    learning steps, a compression step behind each; before the first one is direct compression.
    Penalties (of pruning, of ranks, of bits) meet the errors at mu / 2, so ranks, sparsities and
    steps of quantisation are chosen along the way. The result is decode(theta).

    Args:
        rules: Glob pattern of parameter names -> scheme, or `Compression` for joint ones.
        mu: Of the first step.
        growth: a.
        steps: Number of compression steps.
        multipliers: The augmented Lagrangian; else the quadratic penalty alone.
        select_from: Share of the steps after which decode(theta) may be selected: before, the
            weights do not follow it yet.

    Raises:
        InputError: options out of range, or a pattern that matches nothing.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        mu: float = 9e-5,
        growth: float = 1.1,
        steps: int = 40,
        multipliers: bool = True,
        select_from: float = 0.75,
    ) -> None:
        if not 0 < mu < float("inf"):
            raise InputError(f"lc: mu: expected a number above 0, found {mu}")
        if not 1 <= growth < float("inf"):
            raise InputError(f"lc: growth: expected 1 or more, found {growth}")
        if steps < 1:
            raise InputError(f"lc: steps: expected 1 or more, found {steps}")
        if not 0 <= select_from <= 1:
            raise InputError(f"lc: select_from: expected a share, found {select_from}")
        self.rules, self.first_mu, self.growth, self.steps = dict(rules), mu, growth, steps
        self.multipliers, self.select_from = multipliers, select_from
        self.done = 0
        self._theta: dict[str, Parameters] = {}
        self._decoded: dict[str, torch.Tensor] = {}
        self._lambda: dict[str, torch.Tensor] = {}
        self._targets: dict[str, torch.Tensor] = {}
        self._plan: CompressionPlan

    @property
    def mu(self) -> float:
        """The pull of the present learning step."""
        return float(self.first_mu * self.growth ** min(self.done, self.steps - 1))

    def on_start(self, trainer: Trainer) -> None:
        """Direct compression; multipliers are zero."""
        total = trainer.settings.epochs * trainer.steps_per_epoch
        if self.steps > total:
            raise InputError(f"lc: {self.steps} steps in {total} steps of training")
        self._plan = CompressionPlan("lc", trainer.model, self.rules)
        if self._plan.counts_positions:
            self._plan = CompressionPlan("lc", trainer.model, self.rules, _positions(trainer))
        arrays = {n: array_of(parameter_of(trainer.model, n)) for n in self._plan.names}
        self._theta = self._plan.fit(arrays, self.mu)
        for name in self._plan.names:
            weight = parameter_of(trainer.model, name)
            self._lambda[name] = torch.zeros_like(weight, requires_grad=False)
            self._decoded[name] = tensor_of(self._theta[name].decode(), weight)
        self._aim()

    def _aim(self) -> None:
        """What the next learning step pulls towards: decode(theta) + lambda / mu."""
        self._targets = {
            name: decoded + self._lambda[name] / self.mu for name, decoded in self._decoded.items()
        }

    def learning_rate(self, trainer: Trainer, rate: float) -> float:
        """At most 1 / mu."""
        return min(rate, 1.0 / self.mu)

    def after_backward(self, trainer: Trainer) -> None:
        """Adds the gradient of mu/2 |w - decode(theta) - lambda/mu|^2."""
        with torch.no_grad():
            for name, target in self._targets.items():
                weight = parameter_of(trainer.model, name)
                pull = weight - target
                if weight.grad is None:
                    weight.grad = pull.mul_(self.mu)
                else:
                    weight.grad.add_(pull, alpha=self.mu)

    def after_step(self, trainer: Trainer) -> None:
        """A compression step where a learning step ends."""
        total = trainer.settings.epochs * trainer.steps_per_epoch
        while self.done < self.steps and trainer.step + 1 >= round(
            (self.done + 1) * total / self.steps
        ):
            self.compress(trainer)

    def compress(self, trainer: Trainer) -> None:
        """theta = fit(w - lambda / mu); lambda = lambda - mu (w - decode(theta)); mu grows."""
        with torch.no_grad():
            weights = {n: parameter_of(trainer.model, n).detach() for n in self._plan.names}
            arrays = {n: array_of(w - self._lambda[n] / self.mu) for n, w in weights.items()}
            self._theta = self._plan.fit(arrays, self.mu, self._theta, self.done)
            for name, weight in weights.items():
                self._decoded[name] = tensor_of(self._theta[name].decode(), weight)
                if self.multipliers:
                    self._lambda[name].sub_(weight - self._decoded[name], alpha=self.mu)
        self.done += 1
        self._aim()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Logs mu, the distance of the weights from decode(theta), and theta's estimated bits."""
        squares = [
            float((parameter_of(trainer.model, name).detach() - decoded).square().sum())
            for name, decoded in self._decoded.items()
        ]
        record["mu"], record["distance"] = self.mu, sum(squares) ** 0.5
        record["bits"] = sum(parameters.bits() for parameters in self._theta.values())

    def is_selectable(self, trainer: Trainer) -> bool:
        """From a share of the steps on."""
        return self.done >= self.select_from * self.steps

    @contextmanager
    def evaluating(self, trainer: Trainer) -> Iterator[None]:
        """With decode(theta) as weights."""
        kept = {name: parameter_of(trainer.model, name).detach().clone() for name in self._decoded}
        self._write(trainer, self._decoded)
        try:
            yield
        finally:
            self._write(trainer, kept)

    def on_end(self, trainer: Trainer) -> None:
        """Leaves decode(theta)."""
        for name, parameters in self._theta.items():
            put(parameter_of(trainer.model, name), parameters.decode())

    def parameters(self) -> dict[str, Parameters]:
        """Name -> theta."""
        return dict(self._theta)

    def state_dict(self) -> dict[str, Any]:
        """Step, theta and multipliers."""
        return {"done": self.done, "theta": dict(self._theta), "lambda": dict(self._lambda)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.done, self._theta, self._lambda = state["done"], state["theta"], state["lambda"]
        self._decoded = {
            name: tensor_of(parameters.decode(), self._lambda[name])
            for name, parameters in self._theta.items()
        }
        self._aim()

    @staticmethod
    def _write(trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in tensors.items():
                parameter_of(trainer.model, name).copy_(tensor)


def _positions(trainer: Trainer) -> dict[str, int]:
    """Output positions of the layers, measured on one sample."""
    batch, _ = next(iter(trainer.task.train.batches(0)))
    sample = move(batch, trainer.device)
    sample = sample[:1] if isinstance(sample, torch.Tensor) else tuple(part[:1] for part in sample)
    return layer_positions(trainer.model, lambda: trainer.task.outputs(trainer.model, sample))
