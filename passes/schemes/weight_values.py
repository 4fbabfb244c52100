# SPDX-License-Identifier: Apache-2.0
"""A weight and its context as checked arrays, and the rounding that quantisers share."""

from __future__ import annotations

from typing import Literal

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext

Rounding = Literal["nearest", "stochastic"]


def finite_float32(weight: np.ndarray) -> np.ndarray:
    """``weight`` as float32, without a copy where it is that already; SchemeError if empty or not
    finite."""
    if weight.size == 0:
        raise SchemeError("the tensor is empty")
    values = np.asarray(weight, dtype=np.float32)
    if not np.isfinite(values).all():
        raise SchemeError("the tensor holds NaN or infinity")
    return values


def mask_of(weight: np.ndarray, context: FitContext) -> np.ndarray | None:
    """The context's mask, None where it leaves nothing out; SchemeError for another shape."""
    mask = context.mask
    if mask is None:
        return None
    if mask.shape != weight.shape or mask.dtype != bool:
        raise SchemeError(
            f"the mask must be bool {weight.shape}, found {mask.dtype.name} {mask.shape}"
        )
    return None if mask.all() else mask


def importance_of(weight: np.ndarray, context: FitContext) -> np.ndarray | None:
    """The context's importance, broadcast to the weight as float64; SchemeError where it cannot or
    is not positive and finite."""
    if context.importance is None:
        return None
    importance = np.asarray(context.importance, np.float64)
    if not (np.isfinite(importance).all() and (importance > 0).all()):
        raise SchemeError("the importance must be positive and finite")
    try:
        return np.broadcast_to(importance, weight.shape)
    except ValueError as error:
        raise SchemeError(
            f"importance {importance.shape} does not broadcast to the weight's {weight.shape}"
        ) from error


def stochastically_rounded(values: np.ndarray, seed: int) -> np.ndarray:
    """float32 ``values`` rounded down, or up with the probability of the fraction, so without bias
    (Polino, Pascanu, Alistarh 2018, section 3.1); integers stay as they are."""
    below = np.floor(values)
    chance = np.random.default_rng(seed).random(values.shape, np.float32)
    return np.asarray(below + (chance < values - below))


def check_rounding(scheme: str, rounding: str) -> None:
    """SchemeError for an unknown rounding."""
    if rounding not in ("nearest", "stochastic"):
        raise SchemeError(f"{scheme}: rounding must be nearest or stochastic, not {rounding!r}")
