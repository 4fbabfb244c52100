# SPDX-License-Identifier: Apache-2.0
"""From integer latents to weights, by steps that are learned.

Oktay et al. 2020, "Scalable model compression by entropy penalized reparameterization", section 3.
One decoder may serve several layers: give the same object to each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from passes.errors import SchemeError
from passes.schemes import Parameters, UniformParameters
from toolkit.nn.compressed import as_array
from toolkit.nn.stored_size import smallest_integers

Units = Literal["weight", "step"]


class Decoder(nn.Module, ABC):
    """How integers become a weight."""

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the latent of a weight of ``shape``."""
        return shape

    @abstractmethod
    def latent_of(self, weight: Tensor) -> Tensor:
        """The latent to start from, so that the decoded weight is near ``weight``. Steps that have
        no value yet get one."""

    @abstractmethod
    def positions(self, latent: Tensor) -> Tensor:
        """The latent in units of integers, with gradients."""

    @abstractmethod
    def forward(self, integers: Tensor) -> Tensor:
        """The weight of integers (float32 tensors), with gradients; in float32 what
        ``parameters_of`` decodes to."""

    @abstractmethod
    def parameters_of(self, integers: Tensor) -> Parameters:
        """The scheme's parameters of integers."""

    @abstractmethod
    def side_bits(self) -> float:
        """Bits of what must be stored beside the integers."""


class AffineDecoder(Decoder):
    """weight = integer * exp(log_step) [+ offset], one step per tensor, row or column.

    With ``units="weight"`` the latent is the weight itself and integer = round(latent / step): the
    optimiser's rate is that of an ordinary weight, and a step that grows moves weights to smaller
    integers. With ``units="step"`` the latent is in steps, as in the paper: a step that grows
    scales the weight.

    Args:
        step: The step to start from; None for ``relative_step`` times the root mean square of the
            first weight that this decoder is given.
        relative_step: See ``step``.
        axis: None for one step, or the axis that has a step for each index (0: output channels).
        size: The length of that axis; with ``axis`` only.
        units: Of the latent.
        offset: Whether an offset is learned too, from 0; zero is then no value of the grid.
    """

    log_step: Tensor
    is_set: Tensor

    def __init__(
        self,
        step: float | None = None,
        *,
        relative_step: float = 0.5,
        axis: int | None = None,
        size: int | None = None,
        units: Units = "weight",
        offset: bool = False,
    ) -> None:
        super().__init__()
        if (axis is None) != (size is None):
            raise SchemeError("affine decoder: axis and size go together")
        if units not in ("weight", "step"):
            raise SchemeError(f"affine decoder: units must be weight or step, not {units!r}")
        for name, value in (("step", step), ("relative_step", relative_step)):
            if value is not None and not 0 < value < float("inf"):
                raise SchemeError(
                    f"affine decoder: {name} must be positive and finite, not {value}"
                )
        self.relative_step, self.axis, self.units = relative_step, axis, units
        shape = () if size is None else (size,)
        start = torch.full(shape, 1.0 if step is None else step)
        self.log_step = nn.Parameter(start.log())
        self.offset = nn.Parameter(torch.zeros(shape)) if offset else None
        self.register_buffer("is_set", torch.tensor(step is not None))

    def step(self) -> Tensor:
        """float32, () or one per index of the axis."""
        return self.log_step.exp()

    def latent_of(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            if not self.is_set:
                square = weight.square()
                if self.axis is not None:
                    rest = [i for i in range(weight.ndim) if i != self.axis % weight.ndim]
                    square = square.mean(rest) if rest else square
                else:
                    square = square.mean()
                step = self.relative_step * square.sqrt()
                self.log_step.copy_(torch.where(step > 0, step, torch.ones_like(step)).log())
                self.is_set.fill_(True)
            latent = weight.clone()
            if self.units == "weight":
                return latent
            if self.offset is not None:
                latent -= self._spread(self.offset, weight.ndim)
            return latent / self._spread(self.step(), weight.ndim)

    def positions(self, latent: Tensor) -> Tensor:
        if self.units == "step":
            return latent
        if self.offset is not None:
            latent = latent - self._spread(self.offset, latent.ndim)
        return latent / self._spread(self.step(), latent.ndim)

    def forward(self, integers: Tensor) -> Tensor:
        weight = integers * self._spread(self.step(), integers.ndim)
        if self.offset is not None:
            weight = weight + self._spread(self.offset, integers.ndim)
        return weight

    def parameters_of(self, integers: Tensor) -> UniformParameters:
        return UniformParameters(
            symbols=smallest_integers(as_array(integers)),
            scale=as_array(self.step()),
            zero_point=None,
            axis=None if self.axis is None else self.axis % integers.ndim,
            block_size=0,
            dtype=as_array(integers).dtype,
            offset=None if self.offset is None else as_array(self.offset),
        )

    def side_bits(self) -> float:
        return 32.0 * self.log_step.numel() * (1 if self.offset is None else 2)

    def _spread(self, values: Tensor, rank: int) -> Tensor:
        if self.axis is None:
            return values
        return values.reshape([-1 if i == self.axis % rank else 1 for i in range(rank)])
