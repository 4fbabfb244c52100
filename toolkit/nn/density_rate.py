# SPDX-License-Identifier: Apache-2.0
"""A rate for weights of which few are not zero: how full rows and columns are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.nn.sloped import sloped

_LEAST, _MOST = 1e-5, 0.95


class DensityRate(nn.Module):
    """Bits of the symbols nearest to real positions under a model of whole rows and columns.

    A symbol is other than zero with a probability that is a product of how full the tensor is, and
    how much fuller than it the symbol's row, column and tap are; its magnitude is geometric and its
    sign free. A row that empties makes each further symbol in it dearer, so whole units, inputs and
    filters are given up together, and the classes of the codec's rows and columns then make them
    nearly free. Counts are taken anew
    every ``interval`` calls in training mode.

    The slope towards zero is never below ``least_slope``. Where most weights are not zero, a zero
    is the rarer symbol, and the true code would never begin to empty a dense tensor.

    Args:
        shape: Of the tensor, in torch's layout: rows are axis 0, columns axis 1, taps the rest.
        places: Divides axis 1 of a matrix into (shape[1] / places) blocks of ``places``, as a layer
            behind a flattened image sees channels; 1 for none.
        interval: Calls in training mode from one count to the next.
        least_slope: Bits per step of the gradient towards zero, at the least.
    """

    probability: Tensor
    more: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        places: int = 1,
        interval: int = 100,
        least_slope: float = 2.0,
    ) -> None:
        super().__init__()
        self.shape, self.places = tuple(shape), places
        self.interval, self.least_slope = interval, least_slope
        size = math.prod(shape)
        rows = shape[0] if len(shape) > 1 else 1
        columns = shape[1] if len(shape) > 1 else size
        self._view = (rows, columns // places, size // max(rows * (columns // places), 1))
        self.register_buffer("probability", torch.full(self._view, 0.5))
        self.register_buffer("more", torch.tensor(0.5))
        self._age = -1

    def forward(self, positions: Tensor) -> Tensor:
        """Bits, float32 []; ``positions`` are real numbers in units of symbols, of the tensor's
        shape."""
        seen = positions.detach().float().reshape(self._view)
        if self._age < 0 or (self.training and self._age >= self.interval):
            self.learn(seen)
        self._age += self.training
        zero, one, each = self._lengths()
        size = seen.round().abs()
        value = (zero + (one - zero) * size.clamp(max=1)).sum() + each * (size - 1).clamp(
            min=0
        ).sum()
        inner = (one - zero).clamp(min=self.least_slope)
        slopes = torch.where(seen.abs() < 1, inner, each) * seen.sign()
        return sloped(positions, value, slopes.reshape(positions.shape))

    def learn(self, positions: Tensor) -> None:
        """Counts the symbols nearest to ``positions``."""
        symbols = positions.detach().float().reshape(self._view).round().abs()
        used = (symbols != 0).float()
        count, total = float(used.sum()), float(symbols.sum())
        density = max((count + 0.5) / (used.numel() + 1), 1e-4)
        probability = torch.full_like(used, density)
        for axis, length in enumerate(self._view):
            if length == 1 or length == used.numel():
                continue
            rest = [other for other in range(3) if other != axis]
            members = used.numel() / length
            # A prior of sqrt(members) weights with the density of the whole tensor.
            prior = density * math.sqrt(members)
            probability *= (used.sum(rest, keepdim=True) + prior) / (members * density + prior)
        self.probability.copy_(probability.clamp(_LEAST, _MOST))
        more = 1 - (count + 1) / (total + 1.5)
        self.more.fill_(min(max(more, 0.02), 0.9))
        self._age = 0

    def _lengths(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bits of a zero and of a one, each of the view's shape, and of each further step []."""
        one = 1 - torch.log2(self.probability) - torch.log2(1 - self.more)
        return -torch.log2(1 - self.probability), one, -torch.log2(self.more)

    def resized(self, shape: tuple[int, ...]) -> DensityRate:
        """The same rate of a tensor of another shape."""
        return DensityRate(
            shape, places=self.places, interval=self.interval, least_slope=self.least_slope
        )

    def get_extra_state(self) -> Tensor:
        """Calls since the last count, int64 []."""
        return torch.tensor(self._age)

    def set_extra_state(self, state: Any) -> None:
        """Goes on from a state dict."""
        self._age = int(state)
