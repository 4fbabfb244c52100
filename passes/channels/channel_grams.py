# SPDX-License-Identifier: Apache-2.0
"""What each channel of a group adds to the outputs of the layers that take it in, as inner
products: the input of the greedy and the lasso selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passes.channels.labels import Labels
from passes.channels.layer_moments import LayerMoments
from passes.channels.layer_samples import Floats


def channel_grams(
    measured: Sequence[LayerMoments],
    channels: Labels,
    number: Labels,
    matrices: Sequence[Floats] | None = None,
) -> tuple[Floats, Floats]:
    """Inner products of the channels' parts with each other, float64 (channels, channels), and
    with what the channels are wanted to give together, (channels,).

    Summed over the layers, each divided by the energy of its wanted output. What other channels of
    the same layer give (another branch of a Concat) is taken off what is wanted.

    Args:
        measured: Moments of the layers that take the channels in.
        channels: Numbers of the group's channels, int64 (channels,).
        number: The channel of each label.
        matrices: Weights of the layers, float64 (features, outputs); those they have where None.
    """
    gram = np.zeros((channels.size, channels.size))
    target = np.zeros(channels.size)
    place = np.full(int(number.max(initial=-1)) + 1, -1, np.int64)
    place[channels] = np.arange(channels.size)
    for index, moments in enumerate(measured):
        layer, fold = moments.layer, moments.centred()
        features = layer.num_features
        matrix = layer.matrix() if matrices is None else matrices[index]
        parts = fold.inputs[:features, :features] * (matrix @ matrix.T)
        energy = float(fold.energy.sum())
        if energy <= 0:
            continue
        mine = place[number[layer.feature_labels]]
        inside = np.flatnonzero(mine >= 0)
        owner = mine[inside]
        wanted = np.einsum("fo,fo->f", matrix[inside], fold.cross[inside])
        outside = np.flatnonzero(mine < 0)
        wanted -= parts[np.ix_(inside, outside)].sum(1)
        target += np.bincount(owner, wanted, channels.size) / energy
        gram += _summed(parts[np.ix_(inside, inside)], owner, channels.size) / energy
    return gram, target


def _summed(parts: Floats, owner: Labels, size: int) -> Floats:
    """``parts`` summed over rows and columns of the same owner."""
    order = np.argsort(owner, kind="stable")
    sorted_owner = owner[order]
    starts = np.flatnonzero(np.r_[True, sorted_owner[1:] != sorted_owner[:-1]])
    found = sorted_owner[starts]
    rows = np.add.reduceat(parts[np.ix_(order, order)], starts, axis=0)
    result = np.zeros((size, size))
    result[np.ix_(found, found)] = np.add.reduceat(rows, starts, axis=1)
    return result
