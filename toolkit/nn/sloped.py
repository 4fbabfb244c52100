# SPDX-License-Identifier: Apache-2.0
"""A number with given slopes: rates know their gradient without automatic differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, value: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes.to(positions.dtype))
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (slopes,) = ctx.saved_tensors
        return gradient * slopes, None, None


def sloped(positions: Tensor, value: Tensor, slopes: Tensor) -> Tensor:
    """``value``, float32 [], whose gradient with respect to ``positions`` is ``slopes``."""
    result: Tensor = _Sloped.apply(positions, value, slopes)
    return result
