# SPDX-License-Identifier: Apache-2.0
"""Uniform quantisation whose symbols are chosen by squared error and rate, at the costs that the
wide coder's own tables give each symbol.

Rate-distortion optimised quantisation as video coders do it (G. Sullivan, T. Wiegand, "Rate-
distortion optimization for video compression", 1998, section "quantization"), on weights:
S. Wiedemann et al., "DeepCABAC", 2020, section III. Tables and symbols are found in turns, as those
of an entropy-constrained quantiser are (P. Chou, T. Lookabaugh, R. Gray, 1989).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from passes.errors import SchemeError
from passes.schemes.adaptive_steps import steps_in_range
from passes.schemes.base import FitContext
from passes.schemes.coded_bits import in_rows
from passes.schemes.moments import Moments, RowUse
from passes.schemes.scaling import largest_finite
from passes.schemes.uniform import UniformParameters
from passes.schemes.weight_values import finite_float32, importance_of, mask_of
from runtime.trellis import search_symbols

MOST = 2**15 - 1
_MAX_INT8 = 2**7 - 1


@dataclass(frozen=True)
class RateDistortion:
    """How to quantise: exactly one of ``step`` and ``relative_step``.

    Errors count as the context says: by its importance, times the mean square of each input where
    moments are known, or the share of each row of a table.

    Attributes:
        step: That of a plain quantiser whose errors would cost as much in the mean.
        relative_step: The same as a multiple of the weight's root mean square.
        rate_weight: Squared steps of error that a bit is worth; 0 takes the nearest symbols.
        rounds: How often the costs of symbols are learnt from the choice before, 1 to 8.
        adaptive: Whether steps may differ along one axis, where errors count differently there.
    """

    step: float | None = None
    relative_step: float | None = None
    rate_weight: float = 0.12
    rounds: int = 2
    adaptive: bool = True

    def __post_init__(self) -> None:
        check_options("rate_distortion", self.step, self.relative_step, self.rate_weight)
        if not 1 <= self.rounds <= 8:
            raise SchemeError(f"rate_distortion: rounds must be 1 to 8, not {self.rounds}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> UniformParameters:
        """Quantises a float32, float16 or bfloat16 array of any shape.

        Raises SchemeError for an empty array, for NaN or infinity, for importance that is not
        positive, and for a step so small that symbols leave 16 bits.
        """
        context = context or FitContext()
        values, mask = finite_float32(weight), mask_of(weight, context)
        importance = error_weights(values, context)
        step = wanted_step(values, self.step, self.relative_step)
        varied = importance if self.adaptive else np.ones([1] * values.ndim)
        scale, axis = steps_in_range(values, varied, step, weight.dtype)
        spread = spread_along(scale, axis, values.ndim)
        check_range("rate_distortion", values, spread, weight.dtype)
        weights = np.broadcast_to(importance * np.square(spread, dtype=np.float64), values.shape)
        rows = in_rows(np.asarray(values / spread, np.float32))
        kept = mask
        if rows.size > values.size:  # what is padded must not wander from zero
            kept = np.ones(values.shape, np.bool_) if mask is None else mask
        mean = float(weights.mean())
        symbols, _ = search_symbols(
            rows,
            trellis=False,
            rate_weight=self.rate_weight,
            importance=in_rows(np.asarray(weights / mean, np.float32)) if mean > 0 else None,
            kept=None if kept is None else in_rows(kept),
            rounds=self.rounds if self.rate_weight else 0,
        )
        flat = symbols.reshape(-1)[: values.size].reshape(values.shape)
        return uniform_parameters(flat, scale, axis, weight.dtype)


def check_options(
    scheme: str, step: float | None, relative_step: float | None, rate_weight: float
) -> None:
    """SchemeError for anything but one positive step and a rate weight of 0 or more."""
    given = [value for value in (step, relative_step) if value is not None]
    if len(given) != 1:
        raise SchemeError(f"{scheme}: give exactly one of step and relative_step")
    if not (np.isfinite(given[0]) and given[0] > 0):
        raise SchemeError(f"{scheme}: the step must be positive and finite, not {given[0]}")
    if not (np.isfinite(rate_weight) and rate_weight >= 0):
        raise SchemeError(
            f"{scheme}: rate_weight must be finite and not negative, not {rate_weight}"
        )


def error_weights(values: np.ndarray, context: FitContext) -> np.ndarray:
    """What squared errors count by the context, float64 of the weight's rank, 1 along axes where
    they count the same, of mean 1; at least a millionth of that mean."""
    shape = values.shape
    found = np.ones([1] * len(shape))
    moments = context.moments
    if isinstance(moments, RowUse):
        found = spread_along(moments.shares(), moments.axis, len(shape)).astype(np.float64)
    elif isinstance(moments, Moments):
        powers = np.broadcast_to(moments.powers[:, :, None], moments.layout.matrix_shape)
        found = _narrow(moments.layout.array(powers, shape))
    importance = importance_of(values, context)
    if importance is not None:
        found = _narrow(found * importance)
    mean = float(found.mean())
    return np.maximum(found / mean, 1e-6) if mean > 0 else np.ones([1] * len(shape))


def _narrow(array: np.ndarray) -> np.ndarray:
    """``array`` with 1 in place of every dimension along which it does not vary."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, array.shape), array):
            array = first
    return np.asarray(array, np.float64)


def wanted_step(values: np.ndarray, step: float | None, relative_step: float | None) -> float:
    """The absolute step; 1 for a multiple of nothing."""
    if step is not None:
        return step
    squares = np.einsum("i,i->", values.reshape(-1), values.reshape(-1), dtype=np.float64)
    return float((relative_step or 0) * np.sqrt(squares / values.size)) or 1.0


def spread_along(scale: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    """Steps shaped to broadcast against the weight."""
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)])


def check_range(scheme: str, values: np.ndarray, spread: np.ndarray, dtype: np.dtype) -> None:
    """SchemeError where a step needs symbols of more than 16 bits."""
    peak = float(np.abs(values / spread).max())
    if peak > MOST + 0.5:
        raise SchemeError(f"{scheme}: the step needs symbols up to {peak:.0f}, more than 16 bits")
    if float(spread.max()) > largest_finite(dtype):
        raise SchemeError(f"{scheme}: the step is larger than any {dtype} number")


def uniform_parameters(
    symbols: np.ndarray, scale: np.ndarray, axis: int | None, dtype: np.dtype
) -> UniformParameters:
    """Symbols, int16 of the weight's shape, with their steps; of the smallest type, and none that
    stands for more than the largest finite number."""
    reach = np.floor(largest_finite(dtype) / scale.astype(np.float64))
    if reach.min() <= MOST:
        limit = spread_along(reach, axis, symbols.ndim)
        symbols = np.clip(symbols, -limit, limit).astype(np.int16)
    fits = prod(symbols.shape) == 0 or int(np.abs(symbols).max()) <= _MAX_INT8
    return UniformParameters(
        symbols.astype(np.int8) if fits else symbols,
        scale if axis is not None else scale.reshape(()),
        None,
        axis,
        0,
        dtype,
    )
