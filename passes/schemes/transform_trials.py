# SPDX-License-Identifier: Apache-2.0
"""What transforms of one weight cost in coded bits, at an error no larger than without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log2

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.coded_bits import coded_bits
from passes.schemes.transform_cost import graph_bytes
from passes.schemes.transform_fold import Folding, folding_of
from passes.schemes.transform_parameters import TransformParameters
from passes.schemes.transform_sensitivity import toeplitz

_EQUAL = 0.005  # of a factor of two
_FIRST_POWER, _LATER_POWER = 0.5, 0.8  # of the ratio of errors that a step is corrected by


@dataclass(frozen=True, eq=False)
class Trial:
    """Bits per element of a weight under one transform, those of the nodes that undo it included;
    the ``factor`` of the quantiser's step, and what was fitted."""

    bits: float
    factor: float
    fitted: Parameters


class Trials:
    """A weight, or a part of it, without a transform and with several.

    Args:
        quantiser: Of the weight or of coefficients.
        candidate: A transform by its name around a quantiser.
        folding: The axes that are transformed.
        lags: Autocorrelation of the inputs along the one axis; None where nothing is known of it,
            so that the quantiser keeps its step unless errors would be larger.
        weight: What is fitted.
        context: Of the fit.
        elements: Of the whole weight, among which the nodes are divided.

    Raises:
        SchemeError: another number of lags than elements along the axis.
    """

    def __init__(
        self,
        quantiser: Scheme,
        candidate: Callable[[str, Scheme], Scheme],
        folding: Folding,
        lags: np.ndarray | None,
        weight: np.ndarray,
        context: FitContext,
        elements: int,
    ) -> None:
        self.quantiser, self.candidate = quantiser, candidate
        self.weight, self.context, self.elements = weight, context, elements
        self.keeps_step = lags is None and scaled(quantiser, 1.0) is not None
        self._axes = folding.axes
        self._gram = None if lags is None else _gram(folding, lags)
        plain = quantiser.fit(weight, context)
        self.plain_bits = coded_bits(plain) / weight.size
        self._wanted = self._error(plain)

    def at_error(self, name: str, trials: int, factor: float = 1.0) -> Trial:
        """A transform at the error of the plain quantiser, as nearly as so many trials reach.

        What is left of a difference is charged as it would cost to mend at 6.02 dB a bit; where
        the step is kept, less error is no gain.
        """
        nearest, least = None, inf
        for turn in range(trials):
            inner = scaled(self.quantiser, factor)
            fitted = self.candidate(name, inner or self.quantiser).fit(self.weight, self.context)
            error = self._error(fitted)
            if error == 0 or self._wanted == 0:
                difference = 0.0 if error <= self._wanted else inf
            else:
                difference = log2(error / self._wanted)
            if self.keeps_step and factor == 1:
                difference = max(difference, 0.0)
            if nearest is None or abs(difference) < least:
                bits = self._bits(fitted) + 0.5 * difference
                nearest, least = Trial(bits, factor if inner else 1.0, fitted), abs(difference)
            if inner is None or least < _EQUAL or error == 0 or self._wanted == 0:
                break
            power = _FIRST_POWER if turn < 2 else _LATER_POWER
            factor *= float(np.clip((self._wanted / error) ** power, 0.2, 5.0))
        if nearest is None:
            raise ValueError("expected at least one trial")
        return nearest

    def _bits(self, fitted: Parameters) -> float:
        nodes = 0.0
        if isinstance(fitted, TransformParameters):
            nodes = 8.0 * graph_bytes(fitted.kind, fitted.folding.sizes, fitted.levels)
        return coded_bits(fitted) / self.weight.size + nodes / self.elements

    def _error(self, fitted: Parameters) -> float:
        """Squared error, as it appears in the layer's output where the inputs are known."""
        error = fitted.decode().astype(np.float64) - self.weight
        if self.context.importance is not None:
            error *= np.sqrt(np.broadcast_to(self.context.importance, error.shape))
        if self._gram is None:
            return float(np.vdot(error, error))
        folded = folding_of(error.shape, self._axes, None, limit=None).fold(error)
        rows = folded.reshape(-1, folded.shape[2])
        return float(np.vdot(rows, rows @ self._gram))


def _gram(folding: Folding, lags: np.ndarray) -> np.ndarray:
    sizes = [size for size in folding.sizes if size > 1]
    if len(sizes) != 1 or sizes[0] != lags.size:
        raise SchemeError(
            f"auto transform: {lags.size} lags of autocorrelation for transforms of "
            f"{folding.sizes} elements"
        )
    return toeplitz(lags)


def scaled(scheme: Scheme, factor: float) -> Scheme | None:
    """``scheme`` with its step, or that of the schemes inside it, multiplied; None where there is
    none."""
    if not dataclasses.is_dataclass(scheme) or isinstance(scheme, type):
        return None
    for name in ("step", "relative_step"):
        value = getattr(scheme, name, None)
        if value is not None:
            changed: Scheme = dataclasses.replace(scheme, **{name: value * factor})
            return changed
    inner = getattr(scheme, "inner", None)
    changed_inner = None if inner is None else scaled(inner, factor)
    if changed_inner is None:
        return None
    outer: Scheme = dataclasses.replace(scheme, **{"inner": changed_inner})
    return outer
