# SPDX-License-Identifier: Apache-2.0
"""Rounding in which features of a layer make up for each other's errors, at the rates of the wide
coder.

E. Frantar et al., "GPTQ", ICLR 2023; the rate in the choice of each symbol as in A. Conzelmann,
R. Bamler, "Reducing storage of pretrained neural networks by rate-constrained quantization and
entropy coding", arXiv 2505.18758 (CERWU), here with the tables that the coder itself would make,
learnt in turns with the symbols. Steps of features follow what they still cost after being made up
for. At the end each symbol is chosen again, all others given (coordinate descent: K. Behdin et al.,
"QuantEase", 2023, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.errors import SchemeError
from passes.schemes.adaptive_steps import steps_in_range
from passes.schemes.base import FitContext
from passes.schemes.coded_bits import coder_shape
from passes.schemes.compensation import Compensation, output_importance
from passes.schemes.feedback import Feedback, feedback_of_groups
from passes.schemes.moments import MatrixLayout, Moments
from passes.schemes.rate_distortion import (
    MOST,
    RateDistortion,
    check_range,
    spread_along,
    uniform_parameters,
    wanted_step,
)
from passes.schemes.scaling import representable_scale
from passes.schemes.uniform import UniformParameters
from passes.schemes.weight_values import finite_float32, mask_of
from runtime.rounding import SymbolRates, round_features

_BLOCK = 64
_LEAST_GAIN, _MOST_GAIN = 0.5, 2.0


@dataclass(frozen=True)
class Compensated(Compensation):
    """Rounds so that features of a layer make up for each other's errors; exactly one of ``step``
    and ``relative_step``, see `Compensation` for all options.

    Needs the second moments of the layer's inputs in the context; without them, and for tables,
    `RateDistortion` takes its place. Of the context's importance only what differs between outputs
    counts.
    """

    scheme = "compensated"

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> UniformParameters:
        """Quantises a float32, float16 or bfloat16 array of any shape.

        Raises SchemeError for an empty array, for NaN or infinity, for moments of another shape,
        and for a step so small that symbols leave 16 bits.
        """
        context = context or FitContext()
        moments = context.moments
        if not (isinstance(moments, Moments) and moments.is_full):
            return self._without_moments(weight, context)
        values, mask = finite_float32(weight), mask_of(weight, context)
        layout = moments.layout
        _check_layout(moments, values.shape)
        inputs = self.counted_inputs(moments, context)
        groups = feedback_of_groups(inputs, self.damping)
        costs = np.stack([group.unordered(group.costs) for group in groups])
        outputs = output_importance(values, context, layout, self.by_output)
        step = wanted_step(values, self.step, self.relative_step)
        varied = np.ones([1] * values.ndim)
        if self.adaptive:
            counted = costs[:, :, None].astype(np.float32)
            if outputs is not None:
                counted = counted * outputs[:, None, :]
            varied = layout.array(np.broadcast_to(counted, layout.matrix_shape), values.shape)
        scale, axis = steps_in_range(values, varied, step, weight.dtype)
        del varied  # as large as the weight
        spread = spread_along(scale, axis, values.ndim)
        check_range("compensated", values, spread, weight.dtype)
        work = _Work(values, spread, layout, mask, outputs)
        rate_weight = self.rate_weight * (step / work.unit) ** 2
        rates = None
        for _ in range(self.rounds + 1 if self.rate_weight else 1):
            for number, group in enumerate(groups):
                work.compensate(number, group, rates, rate_weight)
            rates = work.rates() if self.rate_weight else None
        for _ in range(self.sweeps):
            for number, group in enumerate(groups):
                work.refine(number, group, rates, rate_weight)
            rates = work.rates() if self.rate_weight else None
        symbols = work.result()
        if self.rate_weight:
            gain = best_gain(values, symbols * spread, layout, inputs)
            scale = representable_scale(scale * np.float32(gain), weight.dtype)
        return uniform_parameters(symbols, scale, axis, weight.dtype)

    def _without_moments(self, weight: np.ndarray, context: FitContext) -> UniformParameters:
        if context.moments is None and context.remarks is not None:
            context.remarks.append("nothing known of its inputs: rounded by squared error and rate")
        plain = RateDistortion(
            self.step, self.relative_step, self.rate_weight, self.rounds, self.adaptive
        )
        return plain.fit(weight, context)


def best_gain(
    values: np.ndarray, found: np.ndarray, layout: MatrixLayout, inputs: np.ndarray
) -> float:
    """The factor by which ``found``, all of it, comes nearest to ``values`` in the layer's output:
    choices by rate lean towards zero, and all outputs of the layer with them."""
    dot = power = 0.0
    pairs = zip(layout.matrix(values), layout.matrix(np.asarray(found, np.float32)), strict=True)
    for (before, after), moments in zip(pairs, inputs, strict=True):
        answer = moments.astype(np.float32) @ after
        dot += float(np.vdot(before, answer))
        power += float(np.vdot(after, answer))
    gain = dot / power if power > 0 else 1.0
    return gain if _LEAST_GAIN < gain < _MOST_GAIN else 1.0


class _Work:
    """The state of one fit.

    ``symbols`` int16, flat, in the weight's own order where its outputs lie at equal distances
    there, else in that of the matrices; ``targets`` the weight in steps, [groups, features,
    outputs]; ``steps`` [groups, features] as multiples of ``unit``.
    """

    def __init__(
        self,
        values: np.ndarray,
        spread: np.ndarray,
        layout: MatrixLayout,
        mask: np.ndarray | None,
        output_importance: np.ndarray | None,
    ) -> None:
        self.shape, self.layout = values.shape, layout
        scaled = np.asarray(values / spread, np.float32)
        self.targets = np.ascontiguousarray(layout.matrix(scaled))
        self.unit = float(spread.max())
        relative = layout.matrix(np.broadcast_to(spread / np.float32(self.unit), values.shape))
        # Steps vary along one axis of the weight, so that they are products of these two.
        self.steps = np.array(relative[:, :, 0], np.float32)
        of_outputs = relative[:, 0, :] / relative[:, 0, :1]
        if (of_outputs != 1).any():
            squares = np.square(of_outputs, dtype=np.float32)
            output_importance = squares * (1.0 if output_importance is None else output_importance)
        kind = np.int32 if values.size < 2**31 else np.int64
        places = layout.matrix(np.arange(values.size, dtype=kind).reshape(values.shape))
        strides = np.diff(places[:1, :1, :].reshape(-1))
        self.own_order = bool((strides == strides[:1]).all())
        if not self.own_order:
            places = np.arange(values.size, dtype=kind).reshape(layout.matrix_shape)
            strides = np.ones(1, kind)
        self.first = np.ascontiguousarray(places[:, :, 0], np.int64)
        self.stride = int(strides[0]) if strides.size else 1
        rounded = np.rint(scaled)
        np.clip(rounded, -MOST, MOST, out=rounded)
        self.symbols = self._ordered(rounded.astype(np.int16))
        self.kept = None if mask is None else self._ordered(mask)
        self.output_importance = (
            None
            if output_importance is None
            else np.ascontiguousarray(output_importance, np.float32)
        )

    def _ordered(self, array: np.ndarray) -> np.ndarray:
        inside = array if self.own_order else self.layout.matrix(array)
        return np.ascontiguousarray(inside).reshape(-1).copy()

    def rates(self) -> SymbolRates:
        """What symbols would cost now."""
        shape = coder_shape(self.shape) if self.own_order else self.layout.matrix_shape
        size = self.symbols.size
        return SymbolRates(self.symbols.reshape(shape or (1, 1, size)))

    def result(self) -> np.ndarray:
        """The symbols, int16 of the weight's shape."""
        if self.own_order:
            return self.symbols.reshape(self.shape)
        return self.layout.array(self.symbols.reshape(self.layout.matrix_shape), self.shape)

    def compensate(
        self, number: int, group: Feedback, rates: SymbolRates | None, rate_weight: float
    ) -> None:
        """Rounds the features of a group one after the other, later ones making up for each."""
        steps = self.steps[number][group.order]
        coupling = group.coupling * steps[:, None]
        coupling /= steps
        costs = (group.costs * np.square(steps, dtype=np.float64)).astype(np.float32)
        targets = self.targets[number][group.order]
        self._round(number, group, targets, coupling, costs, rates, rate_weight, refine=False)

    def refine(
        self, number: int, group: Feedback, rates: SymbolRates | None, rate_weight: float
    ) -> None:
        """Chooses each symbol of a group again, the others given."""
        steps = self.steps[number][group.order]
        inputs = group.inputs * steps[:, None]
        inputs *= steps
        powers = np.ascontiguousarray(np.diagonal(inputs))
        now = self._symbols_of(number, group.order)
        error = self.targets[number][group.order]
        np.subtract(now, error, out=error)
        targets = inputs @ error
        targets /= powers[:, None]
        np.subtract(now, targets, out=targets)
        del now, error  # as large as the weight
        inputs /= powers
        self._round(number, group, targets, inputs, powers, rates, rate_weight, refine=True)

    def _symbols_of(self, number: int, features: np.ndarray) -> np.ndarray:
        """Those of some features, float32 [features, outputs]."""
        length = self.layout.matrix_shape[2] * self.stride
        found = np.empty((len(features), self.layout.matrix_shape[2]), np.float32)
        for row, first in zip(found, self.first[number][features], strict=True):
            row[:] = self.symbols[first : first + length : self.stride]
        return found

    def _round(
        self,
        number: int,
        group: Feedback,
        targets: np.ndarray,
        coupling: np.ndarray,
        costs: np.ndarray,
        rates: SymbolRates | None,
        rate_weight: float,
        refine: bool,
    ) -> None:
        """Blocks of features, what they miss handed on to all later ones at once."""
        places = self.first[number][group.order]
        importance = None if self.output_importance is None else self.output_importance[number]
        for start in range(0, len(places), _BLOCK):
            block = slice(start, start + _BLOCK)
            missed = round_features(
                self.symbols,
                np.ascontiguousarray(targets[block]),
                np.ascontiguousarray(coupling[block, block]),
                np.ascontiguousarray(costs[block]),
                np.ascontiguousarray(places[block]),
                stride=self.stride,
                rates=rates,
                rate_weight=rate_weight,
                refine=refine,
                output_importance=importance,
                kept=self.kept,
            )
            later = slice(start + _BLOCK, None)
            targets[later] += coupling[block, later].T @ missed


def _check_layout(moments: Moments, shape: tuple[int, ...]) -> None:
    layout = moments.layout
    sizes = tuple(shape[axis] for axis in layout.axes) if len(layout.axes) == len(shape) else ()
    groups, features, _ = layout.matrix_shape
    fits = np.prod(sizes) == np.prod(layout.split) and moments.inputs.shape[:2] == (
        groups,
        features,
    )
    if not sizes or not fits:
        raise SchemeError(
            f"compensated: moments {moments.inputs.shape} of a weight {layout.split} do not belong "
            f"to one of {shape}"
        )
