# SPDX-License-Identifier: Apache-2.0
"""Refits a layer's weight and bias by least squares, so that from the channels that are left it
gives the outputs that the original gave.

He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section
3.1 (the second of the alternating problems) and 3.2 (outputs of the original, inputs of the pruned
network). Ridge regularised towards the original weight, not towards zero: directions that the
calibration data does not show keep their values. The strength is the one that does best on samples
left out of the fit; where none does better than the original weight, that stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from passes.channels.layer_moments import Fold, LayerMoments
from passes.channels.layer_samples import Array, Block, Floats, Indices

STRENGTHS = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-5, 1e-7)
"""Ridges to try, as multiples of the features' mean square, until the error rises."""
_UNJUDGED = 1e-2
_WORTH = 0.98
"""A refit must leave less than this share of the error on the samples left out of it: a smaller
gain is as likely to be chance."""


@dataclass(frozen=True)
class Refit:
    """What a refit did: squared error on the calibration data divided by the energy of the wanted
    output, before and after, and the strength of the ridge; None where the weight stayed."""

    name: str
    error_before: float
    error_after: float
    strength: float | None


def refit_layer(
    moments: LayerMoments, kept: npt.NDArray[np.bool_], state: tuple[Array, Floats | None]
) -> Refit:
    """Fits the layer of ``moments`` anew and writes weight and bias.

    Args:
        moments: Of the layer's inputs now, and its outputs in the original.
        kept: bool (features,): features that stay; the weights of others become 0.
        state: The weight and bias that the layer had in the original (``MatrixLayer.state``). An
            earlier refit is no starting point: it has seen the samples that judge this one.
    """
    layer = moments.layer
    matrix, bias = layer.matrix(state[0]), state[1]
    matrix[~kept] = 0
    blocks, whole = layer.blocks(), moments.whole()
    present = np.append(matrix, np.zeros((1, matrix.shape[1])) if bias is None else bias[None], 0)
    indices = [_indices(features, kept, bias is not None) for features, _ in blocks]
    energy = max(float(whole.energy.sum()), np.finfo(float).tiny)
    before = _error(whole, present, indices, blocks)
    strength = _best_strength(moments, present, indices, blocks)
    fitted = None if strength is None else _fit(whole, present, indices, blocks, strength)
    if fitted is None:
        layer.set_matrix(matrix)
        if bias is not None:
            layer.set_bias(bias)
        return Refit(str(layer.use.weight.name), before / energy, before / energy, None)
    layer.set_matrix(fitted[:-1])
    if bias is not None:
        layer.set_bias(fitted[-1])
    after = _error(whole, fitted, indices, blocks)
    return Refit(str(layer.use.weight.name), before / energy, after / energy, strength)


def _indices(features: slice, kept: npt.NDArray[np.bool_], has_bias: bool) -> Indices:
    found = np.flatnonzero(kept[features]) + features.start
    return np.append(found, kept.size) if has_bias else found


def _best_strength(
    moments: LayerMoments, present: Floats, indices: Sequence[Indices], blocks: Sequence[Block]
) -> float | None:
    """The strength with the least error on fold 1 of a fit on fold 0, None for no fit."""
    train, test = moments.folds
    if not train.count or not test.count:
        return _UNJUDGED if train.count or test.count else None
    best, least = None, _WORTH * _error(test, present, indices, blocks)
    for strength in STRENGTHS:
        fitted = _fit(train, present, indices, blocks, strength)
        if fitted is not None:
            error = _error(test, fitted, indices, blocks)
            if error >= least and best is not None:
                break
            if error < least:
                best, least = strength, error
    return best


def _fit(
    fold: Fold,
    present: Floats,
    indices: Sequence[Indices],
    blocks: Sequence[Block],
    strength: float,
) -> Floats | None:
    """The ridge solution, (features + 1, outputs); None where it has none."""
    fitted, last = present.copy(), len(present) - 1
    for index, (_, outputs) in zip(indices, blocks, strict=True):
        inputs = fold.inputs[np.ix_(index, index)]
        old = present[index, outputs]
        power = float(np.diagonal(inputs)[index < last].sum()) / max(len(index), 1)
        if power <= 0:
            continue  # no inputs, or all are zero: nothing to fit
        ridge = np.full(len(index), strength * power)
        ridge[index == last] = 1e-9 * fold.count  # the bias is free
        rest = fold.cross[index, outputs] - inputs @ old
        inputs[np.diag_indices_from(inputs)] += ridge
        try:
            factor = scipy.linalg.cho_factor(
                inputs, lower=True, overwrite_a=True, check_finite=False
            )
            change = scipy.linalg.cho_solve(factor, rest, overwrite_b=True)
        except scipy.linalg.LinAlgError:
            return None
        fitted[index, outputs] = old + change
    return fitted if np.isfinite(fitted).all() else None


def _error(
    fold: Fold, matrix: Floats, indices: Sequence[Indices], blocks: Sequence[Block]
) -> float:
    """Squared error over the rows of a fold."""
    total = float(fold.energy.sum())
    for index, (_, outputs) in zip(indices, blocks, strict=True):
        part = matrix[index, outputs]
        product = fold.inputs[np.ix_(index, index)] @ part
        total += float(np.vdot(part, product) - 2 * np.vdot(part, fold.cross[index, outputs]))
    return max(total, 0.0)
