# SPDX-License-Identifier: Apache-2.0
"""Decides for each weight whether a transform pays: coded bits against the same quantiser without
it, at an output error that is no larger.

Where the autocorrelation of the inputs is known, that error is computed, and the step of the
coefficients is fitted until both are equal. Where it is not, inputs may have their power at any
frequency, so coefficients keep the step of the weights, or take a finer one where their squared
error would be larger: at no frequency is the error then larger than that of a quantiser of white
noise. A coarser step at equal squared error of the weight would put more error where smooth inputs
have their power.

A transform gains where neighbours resemble each other (the coding gain of Jayant and Noll 1984,
section 12.1) and loses where the weight is sparse, which its mixing undoes; so it is measured. Bits
are those of the wide coder with its contexts, which profits from neighbours by itself, and of the
nodes that undo the transform. Of a large weight a part decides which transform is best, all of it
whether that one pays.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import isfinite

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.partition import largest_divisor
from passes.schemes.transform import Transform
from passes.schemes.transform_fold import MAX_SIZE, Folding, folding_of
from passes.schemes.transform_kinds import check_kind
from passes.schemes.transform_sensitivity import frequency_sensitivity, toeplitz
from passes.schemes.transform_trials import Trials
from passes.schemes.weight_values import finite_float32

_SAMPLE = 1 << 18  # elements that a decision looks at
_REFINED, _TRIALS = 2, 6  # transforms whose step is fitted, and how often
_TRIALS_OF_ALL = 2  # on all of the weight, from the step that its part takes


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
        if not isfinite(self.bits[best]):
            return f"no transform: exact without one, {self.plain_bits:.3f} bits per weight"
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
        decision, fitted = self._decided(weight, context)
        if context is not None and context.remarks is not None:
            context.remarks.append(decision.text)
        return self._quantiser.fit(weight, context) if fitted is None else fitted

    def decide(self, weight: np.ndarray, context: FitContext | None = None) -> Decision:
        """Which transform pays; SchemeError as ``fit``."""
        return self._decided(weight, context)[0]

    def _decided(
        self, weight: np.ndarray, context: FitContext | None
    ) -> tuple[Decision, Parameters | None]:
        """The decision, and the parameters of the transform where one pays."""
        context = dataclasses.replace(context or FitContext(), remarks=None)
        values = finite_float32(weight)
        if not values.ndim or not values.any():
            return Decision(None, 0.0, {}, 1.0), None
        folding = folding_of(values.shape, self.axes, None, limit=None)
        names = [
            f"{kind}/{block}" if block else kind
            for block in self.blocks
            if block < max(folding.sizes) and (block or max(folding.sizes) <= MAX_SIZE)
            for kind in self.kinds
        ]
        if not names:
            return Decision(None, 0.0, {}, 1.0), None
        trials = self._trials(folding, *_sampled(weight, folding, context), weight.size)
        found = {name: trials.at_error(name, 1) for name in names}
        for name in sorted(names, key=lambda n: found[n].bits)[:_REFINED]:
            found[name] = trials.at_error(name, _TRIALS)
        best = min(found, key=lambda name: found[name].bits)
        if trials.weight.size < weight.size and found[best].bits < trials.plain_bits:
            trials = self._trials(folding, weight, context, weight.size)
            found[best] = trials.at_error(best, _TRIALS_OF_ALL, found[best].factor)
        chosen = found[best]
        pays = chosen.bits < (1 - self.margin) * trials.plain_bits
        kept = trials.keeps_step and chosen.factor == 1
        decision = Decision(
            best if pays else None,
            trials.plain_bits,
            {name: trial.bits for name, trial in found.items()},
            chosen.factor if pays else 1.0,
            "step" if kept else "error",
        )
        return decision, chosen.fitted if pays else None

    def _trials(
        self, folding: Folding, weight: np.ndarray, context: FitContext, elements: int
    ) -> Trials:
        lags = None if self.autocorrelation is None else np.array(self.autocorrelation)
        return Trials(self._quantiser, self._candidate, folding, lags, weight, context, elements)

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


def _sampled(
    weight: np.ndarray, folding: Folding, context: FitContext
) -> tuple[np.ndarray, FitContext]:
    """Every n-th slice along the first axis, where that is not transformed."""
    every = -(-weight.size // _SAMPLE)
    if every == 1 or 0 in folding.axes or weight.shape[0] < 2 * every:
        return weight, context
    mask, importance = (
        None if array is None else np.broadcast_to(array, weight.shape)[::every]
        for array in (context.mask, context.importance)
    )
    return weight[::every], dataclasses.replace(
        context, mask=mask, importance=importance, previous=None, moments=None
    )
