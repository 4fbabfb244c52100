# SPDX-License-Identifier: Apache-2.0
"""Decides for each weight whether a transform pays: coded bits against the same quantiser without
it, at an output error that is no larger.

Where the autocorrelation of the inputs is known, that error is computed, and the step of the
coefficients is fitted until both are equal. Where it is not, inputs may have their power at any
frequency, so coefficients keep the step of the weights: at no frequency is the error then larger
than that of a quantiser of white noise. A coarser step at equal squared error of the weight would
put more error where smooth inputs have their power.

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
from passes.schemes.partition import largest_divisor
from passes.schemes.transform import Transform
from passes.schemes.transform_fold import MAX_SIZE, Folding, folding_of
from passes.schemes.transform_kinds import check_kind
from passes.schemes.transform_sensitivity import frequency_sensitivity, toeplitz
from passes.schemes.weight_values import finite_float32

_SAMPLE = 1 << 18  # elements that a decision looks at
_REFINED, _TRIALS = 2, 6  # transforms whose step is fitted, and how often


@dataclass(frozen=True)
class Decision:
    """What a decision rests on.

    Attributes:
        choice: The transform that pays, as ``dct`` or, in blocks of 16, ``dct/16``; None where none
            does.
        plain_bits: Coded bits per element without transform.
        bits: By transform the bits per element at the plain quantiser's error, or step.
        factor: What the quantiser's step is multiplied by under ``choice``.
        basis: What is equal: error, or step.
    """

    choice: str | None
    plain_bits: float
    bits: dict[str, float]
    factor: float
    basis: str = "error"

    @property
    def text(self) -> str:
        """One line for a report."""
        if not self.bits:
            return "no transform: nothing to compare"
        best = min(self.bits, key=lambda name: self.bits[name])
        change = 100 * (self.bits[best] / self.plain_bits - 1) if self.plain_bits else 0.0
        figures = f"{best} {self.bits[best]:.3f}, none {self.plain_bits:.3f} bits per weight at "
        figures += f"equal {self.basis} ({change:+.1f} %)"
        return f"{self.choice}: {figures}" if self.choice else f"no transform: {figures}"


@dataclass(frozen=True)
class AutoTransform:
    """The best of several transforms, or none of them where none pays.

    Attributes:
        inner: The quantiser, of the coefficients or of the weight itself.
        kinds, axes, levels: As in ``Transform``.
        blocks: Elements per transform along the axes that are tried, 0 for all.
        autocorrelation: Of what the weight is multiplied with, for lags 0 … F - 1 along the one
            axis that is transformed: errors then count as they appear in the output, and steps per
            frequency follow. None counts all alike, and leaves a quantiser its step.
        margin: The share of bits that a transform must save.
    """

    inner: Scheme | None = None
    kinds: tuple[str, ...] = ("dct", "dft", "haar", "db4")
    axes: tuple[int, ...] | None = None
    blocks: tuple[int, ...] = (0, 16)
    levels: int | None = None
    autocorrelation: tuple[float, ...] | None = None
    margin: float = 0.01

    def __post_init__(self) -> None:
        if not self.kinds or not self.blocks or min(self.blocks) < 0:
            raise SchemeError("auto transform: give kinds and blocks to choose from")
        for kind in self.kinds:
            check_kind(kind)
        if self.inner is None:
            raise SchemeError("auto transform: give an inner scheme")

    @property
    def _quantiser(self) -> Scheme:
        if self.inner is None:
            raise SchemeError("auto transform: give an inner scheme")
        return self.inner

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        """Parameters of the transform that pays, else of ``inner`` itself. SchemeError as there."""
        decision = self.decide(weight, context)
        if context is not None and context.remarks is not None:
            context.remarks.append(decision.text)
        if decision.choice is None:
            return self._quantiser.fit(weight, context)
        finer = _scaled(self._quantiser, decision.factor) or self._quantiser
        return self._candidate(decision.choice, finer).fit(weight, context)

    def decide(self, weight: np.ndarray, context: FitContext | None = None) -> Decision:
        """Compares on up to some 260,000 elements of the weight; SchemeError as ``fit``."""
        context = dataclasses.replace(context or FitContext(), remarks=None)
        values = finite_float32(weight)
        if not values.ndim or not values.any():
            return Decision(None, 0.0, {}, 1.0)
        folding = folding_of(values.shape, self.axes, None, limit=None)
        names = [
            f"{kind}/{block}" if block else kind
            for block in self.blocks
            if block < max(folding.sizes) and (block or max(folding.sizes) <= MAX_SIZE)
            for kind in self.kinds
        ]
        if not names:
            return Decision(None, 0.0, {}, 1.0)
        gram = self._gram(folding)
        values, context = _sampled(values, folding, context)
        plain = self._quantiser.fit(values, context)
        wanted, plain_bits = self._error(plain, values, gram, context), coded_bits(plain)
        found = {n: self._at_error(n, values, gram, context, wanted, 1) for n in names}
        refined = 0 if self._keeps_step else _REFINED
        for name in sorted(names, key=lambda n: found[n][0])[:refined]:
            found[name] = self._at_error(name, values, gram, context, wanted, _TRIALS)
        best = min(found, key=lambda name: found[name][0])
        pays = found[best][0] < (1 - self.margin) * plain_bits
        return Decision(
            best if pays else None,
            plain_bits / values.size,
            {name: bits / values.size for name, (bits, _) in found.items()},
            found[best][1] if pays else 1.0,
            "step" if self._keeps_step else "error",
        )

    @property
    def _keeps_step(self) -> bool:
        return self.autocorrelation is None and _scaled(self._quantiser, 1.0) is not None

    def _candidate(self, name: str, inner: Scheme) -> Transform:
        kind, _, block = name.partition("/")
        steps = None
        if self.autocorrelation is not None:
            size = int(block) if block else len(self.autocorrelation)
            size = largest_divisor(len(self.autocorrelation), size)
            gram = toeplitz(np.array(self.autocorrelation[:size]))
            sensitivity = frequency_sensitivity(kind, size, self.levels, gram)
            steps = tuple(np.sqrt(sensitivity.mean() / sensitivity).tolist())
        return Transform(kind, self.axes, int(block or 0), self.levels, steps=steps, inner=inner)

    def _at_error(
        self,
        name: str,
        values: np.ndarray,
        gram: np.ndarray | None,
        context: FitContext,
        wanted: float,
        trials: int,
    ) -> tuple[float, float]:
        """Bits at the error ``wanted`` and the factor of the step that reaches it, found in so many
        trials. What is left of a difference is charged as it would cost to mend at 6.02 dB a
        bit; where the step is kept, less error is no gain."""
        factor, found = 1.0, dict[float, tuple[float, float]]()
        for _ in range(trials):
            inner = _scaled(self._quantiser, factor)
            candidate = self._candidate(name, inner or self._quantiser)
            fitted = candidate.fit(values, context)
            error, bits = self._error(fitted, values, gram, context), coded_bits(fitted)
            if inner is None or self._keeps_step or not (error > 0 and wanted > 0):
                rate = 0.5 * log2(error / wanted) if error > 0 and wanted > 0 else 0.0
                return bits + values.size * (max(rate, 0.0) if self._keeps_step else rate), 1.0
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
        folded = folding_of(values.shape, self.axes, None, limit=None).fold(error)
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
        context, mask=mask, importance=importance, previous=None, moments=None
    )
