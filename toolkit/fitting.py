# SPDX-License-Identifier: Apache-2.0
"""How a search turns a weight and a step into the values that the weight would decode to."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from toolkit.allocation import step_that_holds
from toolkit.blas_threads import one_blas_thread
from toolkit.mapped_arrays import keeper, size_of, symbols_kept
from toolkit.pipeline import quantised_values

if TYPE_CHECKING:
    from passes.bias_correction import BiasPlace
    from passes.schemes import Compensated, CompensatedTrellis, Moments, Parameters, RowUse
    from passes.select_weights import Weight
    from passes.settings import WeightSettings

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

MAX_KEPT = 1 << 30
"""Symbols of fitted weights that are kept, so that the chosen candidate is not fitted again; of
large models on disk."""
_CANDIDATES = 3


class Fitting(Protocol):
    """One way to quantise, weight by weight. `is_rate_aware` tells whether it weighs error against
    bits by itself, so that at all rates the best steps follow the law of high rate; `workers` how
    many weights are best fitted side by side by the caller."""

    is_rate_aware: bool

    @property
    def workers(self) -> int: ...

    def values(self, arrays: Arrays, steps: Mapping[str, float], draft: bool) -> dict[str, Array]:
        """What the weights in `steps` decode to; `draft` lets it be rough and fast."""

    def settings(self, name: str, step: float) -> WeightSettings:
        """The settings that give these values."""

    def kept(self, name: str, step: float) -> Parameters | None:
        """What was fitted already, where that is still known."""


def chosen(
    fitting: Fitting, fixed: Mapping[str, WeightSettings], steps: Mapping[str, float]
) -> dict[str, WeightSettings | Parameters]:
    """What every weight is encoded by: as `fixed`, and at `steps` what was fitted already, or the
    settings where that is no longer known."""
    found = {
        name: fitting.kept(name, step) or fitting.settings(name, step)
        for name, step in steps.items()
    }
    return {**fixed, **found}


class PlainFitting:
    """Every value to the nearest multiple of the step."""

    is_rate_aware = False
    workers = 1
    """A weight's values are computed by all threads."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    def values(self, arrays: Arrays, steps: Mapping[str, float], draft: bool) -> dict[str, Array]:
        keep = keeper(size_of(arrays.values()))
        return {
            n: keep(quantised_values(arrays[n], step, self._threads)) for n, step in steps.items()
        }

    def settings(self, name: str, step: float) -> WeightSettings:
        from passes.settings import WeightSettings

        return WeightSettings(step=step)

    def kept(self, name: str, step: float) -> Parameters | None:
        return None


class CalibratedFitting:
    """Compensated rounding by the moments of each weight's inputs, weights side by side; minor
    weights to the nearest multiple. Biases take up what their weights miss in the mean; `extras`
    are those of them that no step is sought for, by name."""

    is_rate_aware = True

    def __init__(
        self,
        weights: Mapping[str, Weight],
        moments: Mapping[str, Moments | RowUse],
        threads: int = 0,
        places: Mapping[str, BiasPlace] | None = None,
        extras: Arrays | None = None,
    ) -> None:
        self._weights, self._moments, self._threads = weights, moments, threads
        self._places, self._extras = places or {}, extras or {}
        self._options: dict[str, Any] = {}
        self._kept: dict[str, dict[float, Parameters]] = {}
        size = sum(weight.num_elements for weight in weights.values())
        self._candidates = min(_CANDIDATES, MAX_KEPT // max(size, 1))
        self._in_place = keeper(size * np.dtype(np.float32).itemsize)

    def with_moments(self, moments: Mapping[str, Moments | RowUse]) -> CalibratedFitting:
        """The same by other moments, nothing fitted yet; it keeps one candidate whatever its
        size."""
        other = self.with_options(self._options)
        other._moments = moments
        other._candidates = 1
        return other

    def with_options(self, options: Mapping[str, Any]) -> CalibratedFitting:
        """The same with other options of `Compensated`, or of `CompensatedTrellis` where `trellis`
        is among them and true; nothing fitted yet."""
        other = CalibratedFitting(
            self._weights, self._moments, self._threads, self._places, self._extras
        )
        other._options = dict(options)
        return other

    def values(self, arrays: Arrays, steps: Mapping[str, float], draft: bool) -> dict[str, Array]:
        from passes.bias_correction import bias_changes

        names = sorted((n for n in steps if not self._is_minor(n)), key=lambda n: -arrays[n].size)
        with one_blas_thread(), ThreadPoolExecutor(self.workers) as pool:
            fitted = pool.map(lambda n: self._decoded(n, arrays[n], steps[n], draft), names)
            found = dict(zip(names, fitted, strict=True))
        errors = (
            (name, np.subtract(arrays[name], found[name], dtype=np.float32))
            for name in names
            if name in self._places
        )
        changed = bias_changes(self._places, errors, self._moments, {**self._extras, **arrays})
        for name, step in steps.items():
            if self._is_minor(name):
                array = changed.pop(name, arrays[name])
                found[name] = self._minor(name, array, step, draft).decode()
        return {**found, **changed}

    @property
    def workers(self) -> int:
        """A weight is fitted by one thread."""
        return max(1, self._threads)

    @property
    def moments(self) -> Mapping[str, Moments | RowUse]:
        """What the weights are multiplied with."""
        return self._moments

    @property
    def knows_outputs(self) -> bool:
        """Whether it was measured of any weight how much errors of each output count."""
        from passes.schemes import Moments

        return any(
            isinstance(found, Moments) and found.outputs is not None
            for found in self._moments.values()
        )

    def settings(self, name: str, step: float) -> WeightSettings:
        from passes.settings import WeightSettings

        if self._is_minor(name):
            return WeightSettings(step=step)
        options = {"step": step, **self._options}
        scheme = "compensated_trellis" if options.pop("trellis", False) else "compensated"
        if name in self._places:
            options["centred"] = True
        return WeightSettings(stages=({scheme: options},))

    def kept(self, name: str, step: float) -> Parameters | None:
        return self._kept.get(name, {}).get(step)

    def _is_minor(self, name: str) -> bool:
        return self._weights[name].role == "minor"

    def _minor(self, name: str, array: Array, step: float, draft: bool) -> Parameters:
        from passes.schemes import Uniform

        fitted = Uniform(step=step_that_holds(array, step)).fit(array)
        if not draft:
            self._keep(name, step, fitted)
        return fitted

    def _decoded(self, name: str, array: Array, step: float, draft: bool) -> Array:
        return self._in_place(self._fit(name, array, step, draft).decode())

    def _fit(self, name: str, array: Array, step: float, draft: bool) -> Parameters:
        from passes.schemes import FitContext

        known = self.kept(name, step)
        if known is not None:
            return known
        context = FitContext(
            channel_axis=self._weights[name].channel_axis, moments=self._moments.get(name)
        )
        fitted = self._scheme(name, step, draft).fit(array, context)
        if not draft:
            self._keep(name, step, fitted)
        return fitted

    def _scheme(self, name: str, step: float, draft: bool) -> Compensated | CompensatedTrellis:
        from passes.schemes import Compensated, CompensatedTrellis

        options: dict[str, Any] = {"step": step, "centred": name in self._places, **self._options}
        trellis = options.pop("trellis", False)
        if draft:
            return Compensated(**(options | {"rounds": 1, "sweeps": 0}))
        return (CompensatedTrellis if trellis else Compensated)(**options)

    def _keep(self, name: str, step: float, fitted: Parameters) -> None:
        if self._candidates:
            mine = self._kept.setdefault(name, {})
            mine.pop(step, None)
            mine[step] = symbols_kept(fitted, self._in_place)
            while len(mine) > self._candidates:
                del mine[next(iter(mine))]
