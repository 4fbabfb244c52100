# SPDX-License-Identifier: Apache-2.0
"""Decides for each weight whether a transform pays: coded bits at equal squared error, against the
same quantiser without it.

A transform gains where neighbours resemble each other (the coding gain of Jayant and Noll 1984,
section 12.1) and loses where the weight is sparse, which its mixing undoes; so it is measured. Bits
are those of the wide coder with its contexts, which profits from neighbours by itself.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import log2

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.coded_bits import coded_bits
from passes.schemes.transform import Transform
from passes.schemes.transform_fold import Folding, folding_of
from passes.schemes.transform_kinds import check_kind
from passes.schemes.transform_sensitivity import frequency_sensitivity, toeplitz
from passes.schemes.uniform import finite_float32

_SAMPLE = 1 << 18  # elements that a decision looks at
_TRIALS = 6


@dataclass(frozen=True)
class Decision:
    """What a decision rests on.

    Attributes:
        kind: The transform that pays, None where none does.
        plain_bits: Coded bits per element without transform.
        bits: By kind the bits per element at the plain quantiser's error.
        factor: What the quantiser's step is multiplied by for that error under ``kind``.
    """

    kind: str | None
    plain_bits: float
    bits: dict[str, float]
    factor: float

    @property
    def text(self) -> str:
        """One line for a report."""
        best = min(self.bits, key=lambda kind: self.bits[kind])
        change = 100 * (self.bits[best] / self.plain_bits - 1) if self.plain_bits else 0.0
        figures = f"{best} {self.bits[best]:.3f}, none {self.plain_bits:.3f} bits per weight at "
        figures += f"equal error ({change:+.1f} %)"
        return f"{self.kind}: {figures}" if self.kind else f"no transform: {figures}"


@dataclass(frozen=True)
class AutoTransform:
    """The best of several transforms, or none of them where none pays.

    Attributes:
        inner: The quantiser, of the coefficients or of the weight itself.
        kinds, axes, block, levels: As in ``Transform``.
        autocorrelation: Of what the weight is multiplied with, for lags 0 … F - 1 along the one
            axis that is transformed: errors then count as they appear in the output, and steps per
            frequency follow. None counts all alike.
        margin: The share of bits that a transform must save.
    """

    inner: Scheme
    kinds: tuple[str, ...] = ("dct", "dft", "haar", "db4")
    axes: tuple[int, ...] | None = None
    block: int | tuple[int, ...] | None = None
    levels: int | None = None
    autocorrelation: tuple[float, ...] | None = None
    margin: float = 0.01

    def __post_init__(self) -> None:
        if not self.kinds:
            raise SchemeError("auto transform: no kinds to choose from")
        for kind in self.kinds:
            check_kind(kind)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        """Parameters of the transform that pays, else of ``inner`` itself. SchemeError as there."""
        decision = self.decide(weight, context)
        if decision.kind is None:
            return self.inner.fit(weight, context)
        finer = _scaled(self.inner, decision.factor) or self.inner
        return self._candidate(decision.kind, weight.shape, finer).fit(weight, context)

    def decide(self, weight: np.ndarray, context: FitContext | None = None) -> Decision:
        """Compares on up to some 260,000 elements of the weight; SchemeError as ``fit``."""
        context = context or FitContext()
        values = finite_float32(weight)
        if not values.ndim or not values.any():
            return Decision(None, 0.0, dict.fromkeys(self.kinds, 0.0), 1.0)
        folding = folding_of(values.shape, self.axes, self.block)
        values, context = _sampled(values, folding, context)
        gram = self._gram(folding)
        plain = self.inner.fit(values, context)
        wanted, plain_bits = self._error(plain, values, gram, context), coded_bits(plain)
        found, factors = {}, {}
        for kind in self.kinds:
            found[kind], factors[kind] = self._at_error(kind, values, gram, context, wanted)
        best = min(found, key=lambda kind: found[kind])
        pays = found[best] < (1 - self.margin) * plain_bits
        return Decision(
            best if pays else None,
            plain_bits / values.size,
            {kind: bits / values.size for kind, bits in found.items()},
            factors[best] if pays else 1.0,
        )

    def _candidate(self, kind: str, shape: tuple[int, ...], inner: Scheme) -> Transform:
        steps = None
        if self.autocorrelation is not None:
            gram = self._gram(folding_of(shape, self.axes, self.block))
            size = len(self.autocorrelation)
            sensitivity = frequency_sensitivity(kind, size, self.levels, gram)
            steps = tuple(np.sqrt(sensitivity.mean() / sensitivity).tolist())
        return Transform(kind, self.axes, self.block, self.levels, steps=steps, inner=inner)

    def _at_error(
        self,
        kind: str,
        values: np.ndarray,
        gram: np.ndarray | None,
        context: FitContext,
        wanted: float,
    ) -> tuple[float, float]:
        """Bits at the error ``wanted`` and the factor of the step that reaches it. A quantiser
        without a step is charged what its error would cost to mend at 6.02 dB a bit."""
        factor, found = 1.0, dict[float, tuple[float, float]]()
        for _ in range(_TRIALS):
            inner = _scaled(self.inner, factor)
            candidate = self._candidate(kind, values.shape, inner or self.inner)
            fitted = candidate.fit(values, context)
            error, bits = self._error(fitted, values, gram, context), coded_bits(fitted)
            if inner is None or not (error > 0 and wanted > 0):
                rate = 0.5 * log2(error / wanted) if error > 0 and wanted > 0 else 0.0
                return bits + values.size * rate, 1.0
            found[factor] = error, bits
            if abs(log2(error / wanted)) < 0.005:
                break
            factor *= float(np.clip((wanted / error) ** (0.5 if len(found) < 3 else 0.8), 0.2, 5.0))
        factor = min(found, key=lambda f: abs(log2(found[f][0] / wanted)))
        error, bits = found[factor]
        return bits + values.size * 0.5 * log2(error / wanted), factor

    def _gram(self, folding: Folding) -> np.ndarray | None:
        if self.autocorrelation is None:
            return None
        sizes = [size for size in folding.sizes if size > 1]
        if len(sizes) != 1 or sizes[0] != len(self.autocorrelation):
            raise SchemeError(
                f"auto transform: {len(self.autocorrelation)} lags of autocorrelation for "
                f"transforms of {folding.sizes} elements"
            )
        return toeplitz(np.array(self.autocorrelation))

    def _error(
        self, fitted: Parameters, values: np.ndarray, gram: np.ndarray | None, context: FitContext
    ) -> float:
        error = fitted.decode().astype(np.float64) - values
        if context.importance is not None:
            error *= np.sqrt(np.broadcast_to(context.importance, error.shape))
        if gram is None:
            return float(np.vdot(error, error))
        folded = folding_of(values.shape, self.axes, self.block).fold(error)
        rows = folded.reshape(-1, folded.shape[2])
        return float(np.vdot(rows, rows @ gram))


def _scaled(scheme: Scheme, factor: float) -> Scheme | None:
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
    scaled = None if inner is None else _scaled(inner, factor)
    if scaled is None:
        return None
    outer: Scheme = dataclasses.replace(scheme, **{"inner": scaled})
    return outer


def _sampled(
    values: np.ndarray, folding: Folding, context: FitContext
) -> tuple[np.ndarray, FitContext]:
    """Every n-th slice along the first axis, where that is not transformed."""
    every = -(-values.size // _SAMPLE)
    if every == 1 or 0 in folding.axes or values.shape[0] < 2 * every:
        return values, context
    mask, importance = (
        None if array is None else np.broadcast_to(array, values.shape)[::every]
        for array in (context.mask, context.importance)
    )
    return values[::every], dataclasses.replace(
        context, mask=mask, importance=importance, previous=None
    )
