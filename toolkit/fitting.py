# SPDX-License-Identifier: Apache-2.0
"""How a search turns a weight and a step into the values that the weight would decode to."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from toolkit.pipeline import quantised_values

if TYPE_CHECKING:
    from passes.schemes import Compensated, Moments, Parameters, RowUse
    from passes.select_weights import Weight
    from passes.settings import WeightSettings

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

MAX_KEPT = 256 << 20
"""Symbols of fitted weights that are kept, so that the chosen candidate is not fitted again."""
_CANDIDATES = 3


class Fitting(Protocol):
    """One way to quantise, weight by weight. `is_rate_aware` tells whether it weighs error against
    bits by itself, so that at all rates the best steps follow the law of high rate."""

    is_rate_aware: bool

    def values(self, arrays: Arrays, steps: Mapping[str, float], draft: bool) -> dict[str, Array]:
        """What the weights in `steps` decode to; `draft` lets it be rough and fast."""

    def settings(self, name: str, step: float) -> WeightSettings:
        """The settings that give these values."""

    def kept(self, name: str, step: float) -> Parameters | None:
        """What was fitted already, where that is still known."""


class PlainFitting:
    """Every value to the nearest multiple of the step."""

    is_rate_aware = False

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    def values(self, arrays: Arrays, steps: Mapping[str, float], draft: bool) -> dict[str, Array]:
        return {n: quantised_values(arrays[n], step, self._threads) for n, step in steps.items()}

    def settings(self, name: str, step: float) -> WeightSettings:
        from passes.settings import WeightSettings

        return WeightSettings(step=step)

    def kept(self, name: str, step: float) -> Parameters | None:
        return None


class CalibratedFitting:
    """Compensated rounding by the moments of each weight's inputs, weights side by side; minor
    weights to the nearest multiple."""

    is_rate_aware = True

    def __init__(
        self,
        weights: Mapping[str, Weight],
        moments: Mapping[str, Moments | RowUse],
        threads: int = 0,
    ) -> None:
        self._weights, self._moments, self._threads = weights, moments, threads
        self._kept: dict[str, dict[float, Parameters]] = {}
        size = sum(weight.num_elements for weight in weights.values())
        self._candidates = min(_CANDIDATES, MAX_KEPT // max(size, 1))

    def values(self, arrays: Arrays, steps: Mapping[str, float], draft: bool) -> dict[str, Array]:
        names = sorted(steps, key=lambda name: -arrays[name].size)
        with ThreadPoolExecutor(max(1, self._threads)) as pool:
            fitted = pool.map(lambda n: self._fit(n, arrays[n], steps[n], draft).decode(), names)
            return dict(zip(names, fitted, strict=True))

    def settings(self, name: str, step: float) -> WeightSettings:
        from passes.settings import WeightSettings

        if self._is_minor(name):
            return WeightSettings(step=step)
        return WeightSettings(stages=({"compensated": {"step": step}},))

    def kept(self, name: str, step: float) -> Parameters | None:
        return self._kept.get(name, {}).get(step)

    def _is_minor(self, name: str) -> bool:
        return self._weights[name].role == "minor"

    def _fit(self, name: str, array: Array, step: float, draft: bool) -> Parameters:
        from passes.schemes import FitContext, Uniform

        known = self.kept(name, step)
        if known is not None:
            return known
        if self._is_minor(name):
            return Uniform(step=step).fit(array)
        context = FitContext(
            channel_axis=self._weights[name].channel_axis, moments=self._moments.get(name)
        )
        fitted = _scheme(step, draft).fit(array, context)
        if self._candidates and not draft:
            mine = self._kept.setdefault(name, {})
            mine[step] = fitted
            while len(mine) > self._candidates:
                del mine[next(iter(mine))]
        return fitted


def _scheme(step: float, draft: bool) -> Compensated:
    from passes.schemes import Compensated

    return Compensated(step=step, rounds=1, sweeps=0) if draft else Compensated(step=step)
