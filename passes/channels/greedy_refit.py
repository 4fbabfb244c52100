# SPDX-License-Identifier: Apache-2.0
"""The greedy selection where the next layer is refitted afterwards: each time the channel goes that
least raises the error that is left after the refit.

Step and update are those of the optimal brain surgeon for blocks (Hassibi, Stork, "Second order
derivatives for network pruning", NIPS 1992, section 3; for groups of columns in Kurtic et al.,
"ZipLM", NeurIPS 2023, section 3): with H the inverse of the inputs' second moments and W the
present solution, removing the features c of a channel costs tr(W_c' H_cc^-1 W_c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from passes.channels.labels import Labels
from passes.channels.layer_moments import LayerMoments
from passes.channels.layer_samples import Floats, Indices

RIDGE = 1e-3
"""Towards the present weight, as a multiple of the features' mean square."""
_RIDGES = (RIDGE, 1.0)
_STRENGTHS = (10.0, 1.0, 1e-1, 1e-2, 1e-3)
_WORTH = 0.98  # of the error: what another ridge must leave less than


@dataclass(eq=False)
class RefitProblem:
    """One layer behind a group of channels.

    Attributes:
        inverse: Inverse second moments of its features, float64 (features, features).
        matrix: Its weight at the least error, float64 (features, outputs).
        members: Features of each channel, int64 (channels, most), padded with -1.
        scale: What its error is multiplied by.
    """

    inverse: Floats
    matrix: Floats
    members: Indices
    scale: float

    def costs(self) -> Floats:
        """How much the error rises for each channel that goes, float64 (channels,)."""
        there = self.members >= 0
        if self.members.shape[1] == 1:  # one feature for each channel: nothing to solve
            index = self.members[:, 0]
            rises = np.square(self.matrix[index]).sum(1) / self.inverse[index, index]
            return np.asarray(self.scale * np.where(there[:, 0], rises, 0.0))
        parts = np.where(there[..., None], self.matrix[self.members], 0.0)
        blocks = self.inverse[self.members[:, :, None], self.members[:, None, :]]
        both = there[:, :, None] & there[:, None, :]
        blocks = np.where(both, blocks, np.eye(self.members.shape[1]))
        rises = np.einsum("cko,cko->c", parts, np.linalg.solve(blocks, parts))
        return np.asarray(self.scale * rises)

    def remove(self, channel: int) -> None:
        """Takes the channel's features out of the solution."""
        gone = self.members[channel][self.members[channel] >= 0]
        if not gone.size:
            return
        columns = self.inverse[:, gone]
        steps = np.linalg.solve(columns[gone], np.append(columns.T, self.matrix[gone], axis=1))
        features = len(self.inverse)
        self.inverse -= columns @ steps[:, :features]
        self.matrix -= columns @ steps[:, features:]
        self.matrix[gone] = 0
        self.inverse[gone] = 0
        self.inverse[:, gone] = 0
        self.inverse[gone, gone] = 1  # so that its block can still be solved


def refit_problem(
    moments: LayerMoments,
    kept: np.ndarray,
    channels: Labels,
    number: Labels,
    ridge: float = RIDGE,
    fold: int | None = None,
) -> RefitProblem | None:
    """The problem of one layer, None where its output is constant.

    Args:
        moments: Of the layer.
        kept: bool (features,), those not removed yet.
        channels: Numbers of the group's channels, int64 (channels,).
        number: The channel of each label.
        ridge: Towards the present weight, as a multiple of the features' mean square.
        fold: The fold of the samples that count, all where None.
    """
    layer, index = moments.layer, np.flatnonzero(kept)
    energy = float(moments.centred(fold).energy.sum())
    inputs, wanted = ridge_system(moments, index, ridge, fold)
    if energy <= 0 or not wanted.any():
        return None
    inverse = scipy.linalg.inv(inputs, overwrite_a=True)
    matrix = inverse @ wanted
    place = np.full(int(number.max(initial=-1)) + 1, -1, np.int64)
    place[channels] = np.arange(channels.size)
    owner = place[number[layer.feature_labels[index]]]
    return RefitProblem(inverse, matrix, _members(owner, channels.size), 1 / energy)


def ridge_system(
    moments: LayerMoments, index: Indices, ridge: float = RIDGE, fold: int | None = None
) -> tuple[Floats, Floats]:
    """The normal equations of the features in ``index``, (features, features) and (features,
    outputs), regularised towards their present weight; groups of a convolution are independent."""
    layer, sums = moments.layer, moments.centred(fold)
    inputs, wanted = sums.inputs[np.ix_(index, index)], sums.cross[index]
    if layer.group > 1:
        feature_group = index // (layer.num_features // layer.group)
        output_group = np.arange(wanted.shape[1]) // (wanted.shape[1] // layer.group)
        inputs *= feature_group[:, None] == feature_group
        wanted *= feature_group[:, None] == output_group
    power = float(np.diagonal(inputs).mean()) if index.size else 0.0
    if power <= 0:
        return np.eye(index.size), np.zeros_like(wanted)
    inputs[np.diag_indices_from(inputs)] += ridge * power
    return inputs, wanted + ridge * power * layer.matrix()[index]


def ridge_matrix(
    moments: LayerMoments, kept: np.ndarray, ridge: float = RIDGE, fold: int | None = None
) -> Floats:
    """The layer's weight at the least error with the ``kept`` features only, float64 (features,
    outputs), zeros elsewhere."""
    index = np.flatnonzero(kept)
    inputs, wanted = ridge_system(moments, index, ridge, fold)
    result = np.zeros_like(moments.layer.matrix())
    factor = scipy.linalg.cho_factor(inputs, lower=True, overwrite_a=True, check_finite=False)
    result[index] = scipy.linalg.cho_solve(factor, wanted)
    return result


def best_ridge(
    measured: Sequence[LayerMoments],
    kept: Sequence[np.ndarray],
    channels: Labels,
    number: Labels,
    count: int,
) -> float:
    """The ridge under which the channels to remove are best chosen.

    Few samples make channels look superfluous that they merely do not need; a ridge takes them for
    less sure. Channels are chosen on fold 0, and each choice is judged by what the best refit on
    fold 0 leaves on fold 1.

    Args:
        measured: Moments of the layers behind the group.
        kept: For each of them bool (features,), those not removed yet.
        channels: Numbers of the group's channels, int64 (channels,).
        number: The channel of each label.
        count: How many channels go.
    """
    if not all(fold.count for moments in measured for fold in moments.folds):
        return RIDGE
    errors = {}
    for ridge in _RIDGES:
        problems = [
            refit_problem(moments, mine, channels, number, ridge, 0)
            for moments, mine in zip(measured, kept, strict=True)
        ]
        given = [problem for problem in problems if problem is not None]
        if not given:
            return RIDGE
        gone = channels[greedy_refit_removal(given, count)]
        errors[ridge] = sum(
            _unseen_error(moments, mine & ~np.isin(number[moments.layer.feature_labels], gone))
            for moments, mine in zip(measured, kept, strict=True)
        )
    best = min(errors, key=lambda ridge: errors[ridge])
    return best if errors[best] < _WORTH * errors[RIDGE] else RIDGE


def _unseen_error(moments: LayerMoments, kept: np.ndarray) -> float:
    """Squared error by energy on fold 1, at the best strength of a fit on fold 0."""
    test = moments.centred(1)
    least = np.inf
    for strength in _STRENGTHS:
        matrix = ridge_matrix(moments, kept, strength, 0)
        size = len(matrix)
        error = float(test.energy.sum())
        error += float(np.vdot(matrix, test.inputs[:size, :size] @ matrix))
        error -= 2 * float(np.vdot(matrix, test.cross[:size]))
        if error > least:
            break
        least = error
    return least / max(float(test.energy.sum()), np.finfo(float).tiny)


def greedy_refit_removal(problems: Sequence[RefitProblem], count: int) -> Indices:
    """``count`` channels to remove, in the order found. Changes ``problems``."""
    channels = len(problems[0].members)
    left = np.ones(channels, bool)
    removed = np.empty(min(count, channels), np.int64)
    for place in range(removed.size):
        total = np.sum([problem.costs() for problem in problems], axis=0)
        chosen = int(np.argmin(np.where(left, total, np.inf)))
        removed[place], left[chosen] = chosen, False
        for problem in problems:
            problem.remove(chosen)
    return removed


def _members(owner: Indices, channels: int) -> Indices:
    """Indices of each owner's features, int64 (channels, most), padded with -1."""
    mine = np.flatnonzero(owner >= 0)
    order = mine[np.argsort(owner[mine], kind="stable")]
    counts = np.bincount(owner[mine], minlength=channels)
    members = np.full((channels, int(counts.max(initial=1))), -1, np.int64)
    starts = np.cumsum(counts) - counts
    members[owner[order], np.arange(order.size) - starts[owner[order]]] = order
    return members
