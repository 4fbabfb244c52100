# SPDX-License-Identifier: Apache-2.0
"""A weight whose quantisation points are learned.

Differentiable quantization (Polino, Pascanu, Alistarh 2018, "Model compression via distillation and
quantization", section 4): each weight is the nearest point times the scale of what shares it, so
the gradient of a point is the sum, over the weights that have it, of scale times gradient.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from passes.errors import SchemeError
from passes.schemes import FitContext, Parameters, Points, Scaled, ScaledParameters
from passes.schemes.partition import Granularity
from passes.schemes.scaling import Scaling
from toolkit.nn.compressed import Compressed, as_array, as_tensor, stored_bits_of

Start = Literal["quantiles", "uniform"]


class LearnedPoints(Compressed):
    """weight = points[nearest to (original - offset) / scale] * scale + offset.

    Args:
        count: Number of points, 1 to 65535.
        scaling, granularity, group_size: As `passes.schemes.Scaled`.
        start: Points at quantiles of the scaled weight, or evenly over its range.
        channel_axis: The axis of granularity ``row``.
        interval: Calls of `rate` in training mode between two counts of its bits.
    """

    points: nn.Parameter

    def __init__(
        self,
        count: int,
        *,
        scaling: Scaling = "absmax",
        granularity: Granularity = "bucket",
        group_size: int | None = None,
        start: Start = "quantiles",
        channel_axis: int | None = 0,
        interval: int = 50,
    ) -> None:
        super().__init__()
        if not 1 <= count <= 2**16 - 1:
            raise SchemeError(f"learned points: count must be 1 to 65535, not {count}")
        if start not in ("quantiles", "uniform"):
            raise SchemeError(f"learned points: start must be quantiles or uniform, not {start!r}")
        self.count, self.start = count, start
        self.scaling: Scaling = scaling
        self.granularity: Granularity = granularity
        self.group_size, self.channel_axis, self.interval = group_size, channel_axis, interval
        self.points = nn.Parameter(torch.zeros(count))
        self._counted: tuple[int, float] = (0, 0.0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself; places the points."""
        scaled = self._scaled(weight.detach(), (0.0,))
        values = np.sort(self._moved(as_array(weight), scaled).reshape(-1))
        if self.start == "quantiles":
            at = (np.arange(self.count) + 0.5) / self.count
            points = np.quantile(values, at)
        else:
            points = np.linspace(values[0], values[-1], self.count)
        with torch.no_grad():
            self.points.copy_(as_tensor(points.astype(np.float32), self.points))
        return weight.detach().clone()

    def sort(self) -> Tensor | None:
        """Brings the points into ascending order; returns the permutation, None where they were."""
        with torch.no_grad():
            ordered, order = self.points.sort()
            if torch.equal(ordered, self.points):
                return None
            self.points.copy_(ordered)
            return order

    def training_weight(self, original: Tensor) -> Tensor:
        scaled = self._scaled(original.detach(), self._values())
        spread = scaled.partition.spread
        scale = as_tensor(np.broadcast_to(spread(scaled.scale), scaled.shape), original)
        offset: Tensor | float = 0.0
        if scaled.offset is not None:
            offset = as_tensor(np.broadcast_to(spread(scaled.offset), scaled.shape), original)
        points, _ = self.points.sort()
        moved = (original.detach() - offset) / scale
        nearest = torch.bucketize(moved.contiguous(), (points[1:] + points[:-1]).detach() / 2)
        weight: Tensor = points[nearest] * scale + offset
        if original.requires_grad:
            weight = weight + (original - original.detach())
        return weight

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return as_tensor(self.parameters_of(original).decode(), original)

    def parameters_of(self, original: Tensor) -> Parameters:
        return self._scaled(original.detach(), self._values())

    @torch.compiler.disable
    def rate(self, original: Tensor) -> Tensor:
        """A number without gradients."""
        age, bits = self._counted
        if not self.training or not bits or age >= self.interval:
            age, bits = 0, stored_bits_of(self.parameters_of(original))
        self._counted = (age + 1, bits)
        return torch.tensor(bits, device=original.device)

    def _values(self) -> tuple[float, ...]:
        return tuple(np.sort(as_array(self.points)).tolist())

    @torch.compiler.disable
    def _scaled(self, original: Tensor, points: tuple[float, ...]) -> ScaledParameters:
        scheme = Scaled(
            Points(points),
            scaling=self.scaling,
            granularity=self.granularity,
            group_size=self.group_size,
        )
        return scheme.fit(as_array(original), FitContext(channel_axis=self.channel_axis))

    @staticmethod
    def _moved(array: np.ndarray, scaled: ScaledParameters) -> np.ndarray:
        """(array - offset) / scale."""
        spread = scaled.partition.spread
        if scaled.offset is not None:
            array = array - spread(scaled.offset)
        return np.asarray(array / spread(scaled.scale))
