# SPDX-License-Identifier: Apache-2.0
"""Dependent quantisation in which features of a layer make up for each other's errors.

The trellis (passes.schemes.trellis) runs along the outputs of each feature, the compensation
(passes.schemes.compensated) from each few features to all later ones: so neither needs to know the
other's past. The weight is coded feature by feature; a Transpose brings it back where its own order
is another one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from passes.errors import SchemeError
from passes.schemes.adaptive_steps import steps_in_range
from passes.schemes.base import FitContext, Parameters
from passes.schemes.compensated import Compensated
from passes.schemes.compensation import Compensation, output_importance
from passes.schemes.feedback import Feedback, feedback_of_groups
from passes.schemes.moments import MatrixLayout, Moments
from passes.schemes.rate_distortion import check_range, spread_along, wanted_step
from passes.schemes.trellis import TrellisParameters
from passes.schemes.weight_values import finite_float32, mask_of
from runtime.trellis import search_symbols, trellis_integers

_FINER = 0.6
"""The step of a trellis whose error is that of a plain quantiser of step 1."""
_MIN_OUTPUTS = 64
_TOGETHER = 4096
"""Symbols that are chosen together at least, so that their own rates can be learnt ..."""
_MOST_TOGETHER, _LEAST_BLOCKS = 32, 8
"""... of at most so many features, in so many blocks, since they do not make up for each other."""


@dataclass(frozen=True)
class CompensatedTrellis(Compensation):
    """As `Compensated` with symbols of a trellis; exactly one of ``step`` and ``relative_step``,
    see `Compensation` for all options.

    Needs second moments of one group with 64 outputs or more; anything else is left to
    `Compensated`.
    """

    scheme = "compensated_trellis"

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        """Quantises a float32, float16 or bfloat16 array of any shape, to `TrellisParameters` or
        what `Compensated` gives.

        Raises SchemeError as that does.
        """
        context = context or FitContext()
        moments = context.moments
        order = coded_order(moments.layout) if isinstance(moments, Moments) else None
        if not (isinstance(moments, Moments) and moments.is_full and order is not None):
            return self._plain().fit(weight, context)
        layout = moments.layout
        _, features, outputs = layout.matrix_shape
        values, mask = finite_float32(weight), mask_of(weight, context)
        if outputs < _MIN_OUTPUTS or mask is not None or values.size != features * outputs:
            return self._plain().fit(weight, context)
        inputs = self.counted_inputs(moments, context)
        [group] = feedback_of_groups(inputs, self.damping)
        counted = output_importance(values, context, layout, self.by_output)
        counted = np.ones((1, outputs), np.float32) if counted is None else counted
        step = wanted_step(values, self.step, self.relative_step) * _FINER
        varied = np.ones([1] * values.ndim)
        if self.adaptive:
            costs = group.unordered(group.costs).astype(np.float32)[None, :, None]
            varied = layout.array(costs * counted[:, None, :], values.shape)
        scale, axis = steps_in_range(values, varied, step, weight.dtype)
        del varied  # as large as the weight
        spread = spread_along(scale, axis, values.ndim)
        check_range("compensated_trellis", values, spread, weight.dtype)
        unit = float(spread.max())
        relative = layout.matrix(np.broadcast_to(spread / unit, values.shape))[0]
        work = _Work(
            np.array(layout.matrix(values / spread)[0], np.float32),
            np.array(relative[:, 0]),
            np.square(relative[0] / relative[0, 0]) * counted[0],
            group,
            self.rate_weight / _FINER**2 * (step / unit) ** 2,
            self.rounds,
        )
        work.compensate()
        for _ in range(self.sweeps):
            work.refine()
        return TrellisParameters(
            work.symbols.reshape([values.shape[i] for i in order]),
            (1, features, outputs),
            scale if axis is not None else scale.reshape(()),
            work.bits,
            weight.dtype,
            axis,
            None if order == tuple(range(values.ndim)) else order,
        )

    def _plain(self) -> Compensated:
        return Compensated(**asdict(self))


def coded_order(layout: MatrixLayout) -> tuple[int, ...] | None:
    """The order of a weight's axes in which it is the one matrix of features and outputs; None
    where it is several, or where axes are divided for it."""
    if layout.matrix_shape[0] != 1:
        return None
    own = [i for i in range(len(layout.split)) if i not in layout.groups]
    lead = len(layout.split) - len(layout.axes)  # a leading 1 may stand for the one group
    if lead == 0:
        axis_of = dict(enumerate(layout.axes))
    elif lead == 1 and layout.groups == (0,):
        axis_of = {index + 1: axis for index, axis in enumerate(layout.axes)}
    else:
        return None
    if sorted(own) != sorted([*layout.features, *layout.outputs]):
        raise SchemeError(f"a layout {layout} leaves out dimensions")
    leading = [] if lead else list(layout.groups)
    return tuple(axis_of[i] for i in [*leading, *layout.features, *layout.outputs])


class _Work:
    """The state of one fit: ``weights`` [features, outputs] in steps, ``steps`` [features] as
    multiples of one unit, ``outputs`` what squared errors count in each output, in its steps,
    ``symbols`` int16 and ``values``, the integers that they stand for."""

    def __init__(
        self,
        weights: np.ndarray,
        steps: np.ndarray,
        outputs: np.ndarray,
        group: Feedback,
        rate_weight: float,
        rounds: int,
    ) -> None:
        self.weights, self.steps, self.group = weights, steps, group
        self.outputs = outputs.astype(np.float32)
        self.rate_weight, self.rounds = rate_weight, rounds
        self.symbols = np.zeros(weights.shape, np.int16)
        self.values = np.zeros(weights.shape, np.float32)
        self.row_bits = np.zeros(len(weights))
        together = -(-_TOGETHER // weights.shape[1])
        most = min(_MOST_TOGETHER, max(1, len(weights) // _LEAST_BLOCKS))
        self.block = min(max(together, 1), most)

    @property
    def bits(self) -> float:
        """About what the symbols take."""
        return float(self.row_bits.sum())

    def compensate(self) -> None:
        """Chooses a few features after the other, later ones making up for what is missed."""
        group, order = self.group, self.group.order
        steps = self.steps[order].astype(np.float64)
        coupling = group.coupling * steps[:, None].astype(np.float32)
        coupling /= steps.astype(np.float32)
        costs = group.costs * steps**2
        targets = self.weights[order].astype(np.float32)
        for start in range(0, len(order), self.block):
            block = slice(start, start + self.block)
            self._choose(order[block], targets[block], costs[block])
            missed = targets[block] - self.values[order[block]]
            later = slice(start + self.block, None)
            inside = np.triu(coupling[block, block], 1)
            # What features of a block miss reaches later ones also through one another.
            for row in range(1, len(missed)):
                missed[row] += inside[:row, row] @ missed[:row]
            targets[later] += coupling[block, later].T @ missed

    def refine(self) -> None:
        """Chooses features again, all others given, those of a block by what is known before it;
        what does not cost less is not taken."""
        order = self.group.order
        steps = self.steps[order].astype(np.float64)
        inputs = self.group.inputs * steps[:, None].astype(np.float32)
        inputs *= steps.astype(np.float32)
        powers = np.diagonal(inputs).astype(np.float64)
        error = self.values[order] - self.weights[order]
        for start in range(0, len(order), self.block):
            block = slice(start, start + self.block)
            places = order[block]
            before = self.symbols[places], self.values[places], self.row_bits[places]
            old = error[block].copy()
            slope = inputs[block] @ error
            targets = before[1] - slope / powers[block, None].astype(np.float32)
            self._choose(places, targets, powers[block])
            new = self.values[places] - self.weights[places]
            change = new - old
            counted = change * self.outputs
            gained = 2 * np.vdot(slope, counted) + np.vdot(counted, inputs[block, block] @ change)
            dearer = self.rate_weight * (self.row_bits[places].sum() - before[2].sum())
            if gained + dearer > 0:
                self.symbols[places], self.values[places], self.row_bits[places] = before
            else:
                error[block] = new

    def _choose(self, places: np.ndarray, targets: np.ndarray, costs: np.ndarray) -> None:
        """The symbols of the features at ``places`` by their own costs and rates."""
        importance = np.outer(np.asarray(costs, np.float32), self.outputs)
        symbols, bits = search_symbols(
            np.ascontiguousarray(targets[None]),
            rate_weight=self.rate_weight,
            importance=np.ascontiguousarray(importance[None]),
            rounds=self.rounds if self.rate_weight else 0,
            threads=1,
        )
        self.symbols[places] = symbols[0]
        self.values[places] = trellis_integers(symbols[0])
        self.row_bits[places] = bits / len(places)
