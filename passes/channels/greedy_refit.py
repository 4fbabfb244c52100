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
from scipy import linalg

from passes.channels.labels import Labels
from passes.channels.layer_moments import LayerMoments
from passes.channels.layer_samples import Floats, Indices

RIDGE = 1e-3
"""Towards the present weight, as a multiple of the features' mean square."""


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
    moments: LayerMoments, kept: np.ndarray, channels: Labels, number: Labels
) -> RefitProblem | None:
    """The problem of one layer, None where its output is constant.

    Args:
        moments: Of the layer.
        kept: bool (features,), those not removed yet.
        channels: Numbers of the group's channels, int64 (channels,).
        number: The channel of each label.
    """
    layer, index = moments.layer, np.flatnonzero(kept)
    energy = float(moments.centred().energy.sum())
    inputs, wanted = ridge_system(moments, index)
    if energy <= 0 or not wanted.any():
        return None
    inverse = linalg.inv(inputs, overwrite_a=True)
    matrix = inverse @ wanted
    place = np.full(int(number.max(initial=-1)) + 1, -1, np.int64)
    place[channels] = np.arange(channels.size)
    owner = place[number[layer.feature_labels[index]]]
    return RefitProblem(inverse, matrix, _members(owner, channels.size), 1 / energy)


def ridge_system(moments: LayerMoments, index: Indices) -> tuple[Floats, Floats]:
    """The normal equations of the features in ``index``, (features, features) and (features,
    outputs), regularised towards their present weight; groups of a convolution are independent."""
    layer, fold = moments.layer, moments.centred()
    inputs, wanted = fold.inputs[np.ix_(index, index)], fold.cross[index]
    if layer.group > 1:
        feature_group = index // (layer.num_features // layer.group)
        output_group = np.arange(wanted.shape[1]) // (wanted.shape[1] // layer.group)
        inputs *= feature_group[:, None] == feature_group
        wanted *= feature_group[:, None] == output_group
    power = float(np.diagonal(inputs).mean()) if index.size else 0.0
    if power <= 0:
        return np.eye(index.size), np.zeros_like(wanted)
    inputs[np.diag_indices_from(inputs)] += RIDGE * power
    return inputs, wanted + RIDGE * power * layer.matrix()[index]


def ridge_matrix(moments: LayerMoments, kept: np.ndarray) -> Floats:
    """The layer's weight at the least error with the ``kept`` features only, float64 (features,
    outputs), zeros elsewhere."""
    index = np.flatnonzero(kept)
    inputs, wanted = ridge_system(moments, index)
    result = np.zeros_like(moments.layer.matrix())
    factor = linalg.cho_factor(inputs, lower=True, overwrite_a=True, check_finite=False)
    result[index] = linalg.cho_solve(factor, wanted)
    return result


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
