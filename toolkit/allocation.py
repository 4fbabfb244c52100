# SPDX-License-Identifier: Apache-2.0
"""Chooses the quantisation step of every weight from one knob: reverse water-filling.

With D the noise in the outputs and R the bits, minimising D + lambda R over all steps puts every
weight at the same slope dD/dR. At high rate D_t = s_t step_t^2 and R_t = -n_t log2 step_t, hence
step_t^2 ~ n_t / s_t; at low rate the measured curves of `rate_curve` take the place of both laws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.rate_curve import FINE, RateCurve

RECURRENT_FACTOR = 0.5
"""Steps of recurrent weights in uniform mode, relative to the others: they meet their own error."""

MINOR_OCTAVES = 5.0
"""Biases and norm parameters get steps 2^5 finer: they are few, and every sample meets them."""

FINEST, COARSEST = -12.0, 2.5
"""Range of the knob, log2 of step / RMS ..."""

COARSEST_AWARE = 4.5
"""... which reaches further where symbols are chosen by error and rate."""

MAX_SYMBOL = 32_000
"""Largest magnitude of a symbol: steps never fall below peak / MAX_SYMBOL."""


@dataclass
class Allocation:
    """Steps for every weight as functions of the knob.

    `curves` by weight name; `roles` likewise, missing ones count as ordinary. `sensitivity` holds
    the noise in the outputs (noise energy / signal energy) per unit of relative weight error, by
    name, minor weights may be missing;
    empty means uniform mode, where each step is `2**knob * RMS`, recurrent weights finer.
    `is_rate_aware`: symbols are chosen by error and rate at one price of a bit for all weights, and
    sensitivities are per squared step relative to the RMS; so the high-rate law holds throughout.
    """

    curves: Mapping[str, RateCurve]
    roles: Mapping[str, str] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    is_rate_aware: bool = False
    _shift: float = 0.0

    def __post_init__(self) -> None:
        if self.sensitivity:
            self._shift = self._centre()

    @property
    def mode(self) -> str:
        return "sensitivity" if self.sensitivity else "uniform"

    @property
    def coarsest(self) -> float:
        """The largest knob."""
        return COARSEST_AWARE if self.is_rate_aware else COARSEST

    def steps(self, knob: float) -> dict[str, float]:
        """Absolute step of every weight at `knob`, log2 of a typical step / RMS; larger is
        coarser."""
        relative = {name: self._relative(name, knob) for name in self.curves}
        return {
            name: max(curve.rms * 2.0 ** relative[name], curve.peak / MAX_SYMBOL, 1e-30)
            for name, curve in self.curves.items()
        }

    def bits(self, steps: Mapping[str, float]) -> float:
        """Estimated bits of all weights at the given steps, by zeroth-order entropy; those without
        a step stay as they are."""
        return sum(
            (c.bits_at(steps[name]) if name in steps else 32.0) * c.size
            for name, c in self.curves.items()
        )

    def _relative(self, name: str, knob: float) -> float:
        """log2 of step / RMS of one weight."""
        role = self.roles.get(name, "")
        if role == "minor":
            return knob - MINOR_OCTAVES
        if self.sensitivity:
            return self._solve(name, knob + self._shift)
        return knob + (float(np.log2(RECURRENT_FACTOR)) if role == "recurrent" else 0.0)

    def _solve(self, name: str, level: float) -> float:
        """log2 of the relative step that minimises D + lambda R, lambda = 4**level."""
        curve = self.curves[name]
        share = self.sensitivity[name] / max(curve.size, 1)
        if self.is_rate_aware:
            return float(level + 0.5 * np.log2(1 / share))
        if level + 0.5 * np.log2(1 / share) < FINE[0] - 2:  # below the curve: the high-rate law
            return float(level + 0.5 * np.log2(1 / share))
        cost = np.log2(share) - 2 * level
        total = np.exp2(np.clip(np.log2(curve.mse) + cost, -200, 200)) + curve.bits
        best = int(np.argmin(total))
        if best == 0:
            return float(min(FINE[0], level + 0.5 * np.log2(1 / share)))
        return float(FINE[best])

    def _centre(self) -> float:
        """Shift that makes the mean log2 relative step, weighted by size, about the knob."""
        known = [name for name in self.curves if name in self.sensitivity]
        sizes = np.array([self.curves[name].size for name in known], float)
        shares = np.array([self.sensitivity[n] / max(self.curves[n].size, 1) for n in known])
        return -float(np.average(0.5 * np.log2(1 / shares), weights=np.maximum(sizes, 1)))


def step_that_holds(array: npt.NDArray[Any], step: float) -> float:
    """`step`, or the finest one at which symbols hold `array` where that grew after steps were
    chosen: a bias that takes up the mean error of weights, and may have been zero."""
    peak = max(float(array.max(initial=0)), -float(array.min(initial=0)))
    return max(step, peak / MAX_SYMBOL)


def fill_sensitivity(
    curves: Mapping[str, RateCurve], measured: Mapping[str, float]
) -> dict[str, float]:
    """A sensitivity for every weight, from those that were measured.

    An equal relative error of any weight makes about as much noise in the outputs, however large
    the weight is: every layer's outputs carry it on. So weights that were not measured, and those
    without any effect on these inputs (a branch not taken, a unit that never fires: other inputs
    may reach them), get the measured ones' geometric mean, and no weight less than 1/64 of it.
    """
    positive = {name: value for name, value in measured.items() if value > 0}
    if not positive:
        return {}
    centre = float(np.mean(np.log2(np.array(list(positive.values())))))
    return {
        name: 2.0 ** (max(np.log2(positive[name]), centre - 6.0) if name in positive else centre)
        for name in curves
    }
