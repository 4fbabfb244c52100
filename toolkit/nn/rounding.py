# SPDX-License-Identifier: Apache-2.0
"""Rounding and projection whose gradient is that of the identity (Bengio, Leonard, Courville 2013,
"Estimating or propagating gradients through stochastic neurons", section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.round() + 0.0  # symbols know no negative zero

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, projected: Tensor) -> Tensor:
        return projected.view_as(projected)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def round_through(values: Tensor) -> Tensor:
    """``values`` rounded to the nearest integers (of two as near the even one), exactly; gradients
    pass unchanged."""
    rounded: Tensor = _Round.apply(values)
    return rounded


def straight_through(values: Tensor, projected: Tensor) -> Tensor:
    """``projected``, bit for bit, with the gradient going to ``values`` unchanged."""
    replaced: Tensor = _Replace.apply(values, projected)
    return replaced
