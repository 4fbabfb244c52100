# SPDX-License-Identifier: Apache-2.0
"""Quantisation at a price per bit: min over theta of mu/2 (w - theta)^2 + beta * bits(theta), the
step chosen too.

This is the compression step that the Learning-Compression algorithm (Carreira-Perpiñán and
Idelbayev 2018) lacks for the cost that counts, the coded size. For a given step the symbols are
those of rate-distortion optimised quantisation, one bit being worth 2 beta / (mu step^2) squared
steps; over steps the cost is nearly convex, with its minimum near sqrt(12 beta / (mu ln 2)), where
by high-rate theory (Gish and Pierce 1968, "Asymptotically efficient quantizing") a finer step costs
in bits what it gains in error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log, sqrt

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters
from passes.schemes.coded_bits import coded_bits
from passes.schemes.rate_distortion import MOST, RateDistortion
from passes.schemes.scaling import largest_finite
from passes.schemes.trellis import Trellis, TrellisParameters
from passes.schemes.uniform import UniformParameters
from passes.schemes.weight_values import finite_float32, importance_of

_TRELLIS = 0.6  # its step beside that of a uniform quantiser of the same error
_FINE = 2.0**-7  # step / root mean square where errors cost nothing
_SPANS = (1.0, 0.5, 0.25, 0.125)  # octaves
_SMALL_CODER_BITS = 128.0  # about the header of the coder for tensors that no table pays for


@dataclass(frozen=True)
class RateAware:
    """How to quantise.

    Attributes:
        beta: What a bit costs, in the unit of mu/2 times the squared error; the context has mu.
        trellis: Choose between two quantisers by a trellis: fewer bits for the same error.
        rounds: How often the costs of symbols are learnt from the choice before, 1 to 8.
    """

    beta: float
    trellis: bool = False
    rounds: int = 2

    def __post_init__(self) -> None:
        if not (np.isfinite(self.beta) and self.beta > 0):
            raise SchemeError(f"rate_aware: beta must be positive and finite, not {self.beta}")
        if not 1 <= self.rounds <= 8:
            raise SchemeError(f"rate_aware: rounds must be 1 to 8, not {self.rounds}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        """Quantises a float32, float16 or bfloat16 array of any shape, to `UniformParameters` or
        `TrellisParameters`.

        With mu 0, where errors cost nothing, the step is fine: LC starts there, and a weight of
        zeros is no start. The step of the context's previous parameters is tried as well.

        Raises SchemeError for an empty array, NaN or infinity, and importance that is not positive.
        """
        context = context or FitContext()
        values = finite_float32(weight)
        peak = float(np.abs(values).max(initial=0.0))
        mean_square = float(np.mean(np.square(values, dtype=np.float64)))
        fine = max(_FINE * sqrt(mean_square), peak / MOST) or 1.0
        if peak == 0 or context.mu <= 0:
            return self._quantised(weight, context, fine, 0.0)
        importance = importance_of(values, context)
        mu = context.mu * (1.0 if importance is None else float(importance.mean()))
        try_step = partial(self._at, weight, values, importance, context, mu)
        least = max(peak / MOST, 1e-37)
        most = min(4 * peak, largest_finite(weight.dtype) / 2)
        start = sqrt(12 * self.beta / (mu * log(2))) * (_TRELLIS if self.trellis else 1.0)
        tried = {}
        for step in (start, _step_of(context.previous), most):
            if step is not None:
                step = min(max(step, least), most)
                tried[step] = try_step(step)
        best = min(tried, key=lambda step: tried[step][0])
        for span in _SPANS:
            for factor in (2.0**-span, 2.0**span):
                while True:
                    step = min(max(best * factor, least), most)
                    if step in tried:
                        break
                    tried[step] = try_step(step)
                    if tried[step][0] >= tried[best][0]:
                        break
                    best = step
        return tried[best][1]

    def cost(self, weight: np.ndarray, fitted: Parameters, context: FitContext) -> float:
        """What is minimised: mu/2 times the weighted squared error, and beta times the bits."""
        importance = importance_of(finite_float32(weight), context)
        errors = np.square(finite_float32(weight) - fitted.decode().astype(np.float32), dtype=float)
        weighted = errors if importance is None else errors * importance
        return 0.5 * context.mu * float(weighted.sum()) + self.beta * _bits(fitted)

    def _at(
        self,
        weight: np.ndarray,
        values: np.ndarray,
        importance: np.ndarray | None,
        context: FitContext,
        mu: float,
        step: float,
    ) -> tuple[float, Parameters]:
        fitted = self._quantised(weight, context, step, 2 * self.beta / (mu * step * step))
        return self.cost(weight, fitted, context), fitted

    def _quantised(
        self, weight: np.ndarray, context: FitContext, step: float, rate_weight: float
    ) -> Parameters:
        if self.trellis:
            return Trellis(step=step, rate_weight=rate_weight, rounds=self.rounds).fit(
                weight, context
            )
        return RateDistortion(
            step=step, rate_weight=rate_weight, rounds=self.rounds, adaptive=False
        ).fit(weight, context)


def _step_of(previous: Parameters | None) -> float | None:
    """The step of earlier parameters of this scheme."""
    if isinstance(previous, UniformParameters | TrellisParameters) and previous.scale.size == 1:
        return float(previous.scale.reshape(()))
    return None


def _bits(fitted: Parameters) -> float:
    """Bits as the smaller of the wide coder and the one for small tensors stores them."""
    if isinstance(fitted, TrellisParameters):
        return fitted.bits()
    return min(coded_bits(fitted), fitted.bits() + _SMALL_CODER_BITS)
