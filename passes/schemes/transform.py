# SPDX-License-Identifier: Apache-2.0
"""Transform domain: a weight as the coefficients of a DCT, DST, real DFT or wavelet.

Quantised in the frequency domain as in transform coding (Goyal 2001, "Theoretical foundations of
transform coding"): for networks Wang et al. 2016, "CNNpack", sections 2 and 3, and with one step
per frequency of the kernel Oktay et al. 2020, "Scalable model compression by entropy penalized
reparameterization", section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Scheme
from passes.schemes.transform_basis import grid_exponent
from passes.schemes.transform_fold import Folding, folding_of
from passes.schemes.transform_keep import kept_by_energy, kept_by_number, kept_by_threshold
from passes.schemes.transform_kinds import analysis, check_kind, synthesis
from passes.schemes.transform_parameters import TransformParameters
from passes.schemes.transform_steps import water_filling
from passes.schemes.uniform import Uniform
from passes.schemes.weight_values import finite_float32


@dataclass(frozen=True)
class Transform:
    """How to transform, what to keep of the coefficients, and how to go on with them.

    Attributes:
        kind: ``dct`` (DCT-II), ``dst`` (DST-II), ``dft`` (real form), all orthonormal, or a
            discrete wavelet of PyWavelets such as ``haar``, ``db4``, ``bior4.4`` (periodised).
        axes: The axes to transform, separably; None for the taps of a convolution, and for the
            last axis of a matrix or vector.
        block: Elements per transform along the axes, one number or one per axis, 0 for all; where
            it is no divisor the next smaller one is taken.
        levels: Scales of a wavelet; None for as many as its filters are short enough for.
        keep_number, keep_energy, keep_threshold: At most one: how many of the largest coefficients
            of the tensor stay, which share of the energy (0 to 1), or from which magnitude on.
        steps: Steps per frequency, as many as one transform mixes elements, 0 to drop one.
        step, relative_step, rate: At most one of ``steps`` and these: reverse water-filling with
            this step at mean sensitivity, as a multiple of the root mean square, or for so many
            bits per coefficient.
        sensitivity: How much the squared error of each frequency counts in water-filling.
        inner: The scheme of the coefficients, in units of their steps. Where there are steps it may
            be left out: they are rounded to whole steps.
    """

    kind: str = "dct"
    axes: tuple[int, ...] | None = None
    block: int | tuple[int, ...] | None = None
    levels: int | None = None
    keep_number: int | None = None
    keep_energy: float | None = None
    keep_threshold: float | None = None
    steps: tuple[float, ...] | None = None
    step: float | None = None
    relative_step: float | None = None
    rate: float | None = None
    sensitivity: tuple[float, ...] | None = None
    inner: Scheme | None = None

    def __post_init__(self) -> None:
        check_kind(self.kind)
        resolutions = {name: getattr(self, name) for name in ("step", "relative_step", "rate")}
        given = [name for name, value in resolutions.items() if value is not None]
        if len(given) + (self.steps is not None) > 1:
            raise SchemeError("transform: give at most one of steps, step, relative_step and rate")
        for name in given:
            if not (np.isfinite(resolutions[name]) and resolutions[name] > 0):
                raise SchemeError(
                    f"transform: {name} must be positive and finite, not {resolutions[name]}"
                )
        if self.inner is None and not given and self.steps is None:
            raise SchemeError("transform: give steps or an inner scheme")
        if self.steps is not None and not all(np.isfinite(s) and s >= 0 for s in self.steps):
            raise SchemeError("transform: steps must be finite and not negative")
        if self.sensitivity is not None and not all(
            np.isfinite(s) and s > 0 for s in self.sensitivity
        ):
            raise SchemeError("transform: sensitivity must be positive and finite")
        blocks = self.block if isinstance(self.block, tuple) else (self.block or 0,)
        if min(blocks, default=0) < 0:
            raise SchemeError(f"transform: block must be 0 or more, not {self.block}")
        if self.levels is not None and self.levels < 1:
            raise SchemeError(f"transform: levels must be at least 1, not {self.levels}")
        self._check_keep()

    def _check_keep(self) -> None:
        kept = (self.keep_number, self.keep_energy, self.keep_threshold)
        if sum(value is not None for value in kept) > 1:
            raise SchemeError(
                "transform: give at most one of keep_number, keep_energy and keep_threshold"
            )
        if self.keep_number is not None and self.keep_number < 0:
            raise SchemeError(f"transform: keep_number is {self.keep_number}, expected 0 or more")
        if self.keep_energy is not None and not 0 <= self.keep_energy <= 1:
            raise SchemeError(f"transform: keep_energy is {self.keep_energy}, expected 0 to 1")
        if self.keep_threshold is not None and not self.keep_threshold >= 0:
            raise SchemeError(
                f"transform: keep_threshold is {self.keep_threshold}, expected 0 or more"
            )

    def folding(self, shape: tuple[int, ...]) -> Folding:
        """Which elements of a weight of ``shape`` are transformed together; SchemeError where the
        axes do not fit."""
        return folding_of(shape, self.axes, self.block)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> TransformParameters:
        """Transforms a float32, float16 or bfloat16 array of at least one axis.

        Raises SchemeError for an empty array, NaN or infinity, axes that the weight does not have,
        tables of another length, and what the inner scheme refuses.
        """
        context = context or FitContext()
        values = finite_float32(weight)
        folding = self.folding(values.shape)
        coefficients = self._transformed(folding.fold(values).astype(np.float64), folding)
        importance = self._importance(folding, context)
        steps = self._steps(coefficients, importance)
        kept = self._kept(coefficients)
        mask, places = _masks(folding, context.mask)
        if places is not None:
            kept = places if kept is None else kept & places
        if steps is not None:
            if not steps.all():
                used = np.broadcast_to(steps > 0, coefficients.shape)
                kept = used if kept is None else kept & used
            coefficients = coefficients / np.where(steps > 0, steps, 1.0)
            importance = None if importance is None else importance * np.square(steps)
        if kept is not None:
            coefficients = np.where(kept, coefficients, 0.0)
        with np.errstate(over="ignore"):
            units = coefficients.astype(np.float32)
        previous = context.previous
        inner = (self.inner or Uniform(step=1.0)).fit(
            units,
            FitContext(
                channel_axis=_first_place(folding, context.channel_axis),
                mask=kept,
                importance=None if importance is None else np.maximum(importance, 1e-30),
                mu=context.mu,
                seed=context.seed,
                previous=previous.inner if isinstance(previous, TransformParameters) else None,
                remarks=context.remarks,
            ),
        )
        table = None if steps is None else steps.astype(np.float32)
        decoded = inner.decode().astype(np.float64)
        if table is not None:
            decoded *= table
        return TransformParameters(
            inner=inner,
            kind=self.kind,
            levels=self.levels,
            folding=folding,
            steps=table,
            exponent=grid_exponent(decoded),
            mask=mask,
            dtype=weight.dtype,
        )

    def _transformed(self, folded: np.ndarray, folding: Folding) -> np.ndarray:
        """[A, B, F] positions to [A, B, F] coefficients, both float64."""
        matrices = [analysis(self.kind, size, self.levels) for size in folding.sizes]
        return _along_axes(folded, folding, matrices)

    def _importance(self, folding: Folding, context: FitContext) -> np.ndarray | None:
        """How much the squared error of each coefficient counts, float64 [A, B, F]: the positions'
        importance by the squares of its basis vector."""
        if context.importance is None:
            return None
        spread = np.broadcast_to(np.asarray(context.importance, np.float64), folding.shape)
        squares = [np.square(synthesis(self.kind, n, self.levels)).T for n in folding.sizes]
        return _along_axes(folding.fold(spread), folding, squares)

    def _steps(self, coefficients: np.ndarray, importance: np.ndarray | None) -> np.ndarray | None:
        frequencies = coefficients.shape[2]
        for name in ("steps", "sensitivity"):
            table = getattr(self, name)
            if table is not None and len(table) != frequencies:
                raise SchemeError(
                    f"transform: {name} has {len(table)} entries, expected {frequencies}, one per "
                    "frequency"
                )
        if self.steps is not None:
            return np.array(self.steps, np.float64)
        step = self.step
        if self.relative_step is not None:
            step = self.relative_step * float(np.sqrt(np.mean(np.square(coefficients))))
        if step is None and self.rate is None:
            return None
        sensitivity = np.ones(frequencies) if importance is None else importance.mean(axis=(0, 1))
        if self.sensitivity is not None:
            sensitivity = sensitivity * np.array(self.sensitivity)
        variances = np.mean(np.square(coefficients), axis=(0, 1))
        if not variances.any():
            return np.zeros(frequencies)
        return water_filling(variances, sensitivity, step=step, rate=self.rate)

    def _kept(self, coefficients: np.ndarray) -> np.ndarray | None:
        magnitudes = np.abs(coefficients)
        if self.keep_number is not None:
            return kept_by_number(magnitudes, self.keep_number)
        if self.keep_energy is not None:
            return kept_by_energy(magnitudes, self.keep_energy)
        if self.keep_threshold is not None:
            return kept_by_threshold(magnitudes, self.keep_threshold)
        return None


def _along_axes(folded: np.ndarray, folding: Folding, matrices: list[np.ndarray]) -> np.ndarray:
    """[A, B, F] times one matrix per transformed axis."""
    value = folded.reshape(-1, *folding.sizes)
    for axis, matrix in enumerate(matrices, start=1):
        value = np.moveaxis(np.moveaxis(value, axis, -1) @ matrix, -1, axis)
    return value.reshape(folded.shape)


def _masks(
    folding: Folding, mask: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The mask that the decoded weight is multiplied by (int8), and the one of the coefficients:
    where all positions of a transform are pruned its coefficients are 0, and no mask is needed."""
    if mask is None or mask.all():
        return None, None
    folded = folding.fold(np.broadcast_to(mask, folding.shape))
    places = np.broadcast_to(folded.any(axis=2, keepdims=True), folded.shape)
    if np.array_equal(places, folded):
        return None, places
    return np.broadcast_to(mask, folding.shape).astype(np.int8), places


def _first_place(folding: Folding, channel_axis: int | None) -> int | None:
    """Axis 0 of the coefficients where that is the weight's channel axis, whole."""
    if channel_axis is None:
        return None
    rest = [axis for axis in range(len(folding.shape)) if axis not in folding.axes]
    return 0 if rest and rest[0] == channel_axis % len(folding.shape) == 0 else None
