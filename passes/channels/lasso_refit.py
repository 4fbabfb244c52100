# SPDX-License-Identifier: Apache-2.0
"""The lasso selection where the next layer is refitted afterwards.

He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section
3.1: the two problems, which channels and which weights, are solved in turn. Here in a few rounds,
each of which removes its share of the channels by the lasso and then refits the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passes.channels.channel_grams import channel_grams
from passes.channels.greedy_refit import ridge_matrix
from passes.channels.labels import Labels
from passes.channels.layer_moments import LayerMoments
from passes.channels.layer_samples import Indices
from passes.channels.selection import lasso_removal

ROUNDS = 4


def lasso_refit_removal(
    measured: Sequence[LayerMoments],
    removed: np.ndarray,
    channels: Labels,
    number: Labels,
    count: int,
) -> Indices:
    """``count`` of a group's channels to remove, ascending, as indices into ``channels``.

    Args:
        measured: Moments of the layers behind.
        removed: bool, by number of the channel: those that went before.
        channels: Numbers of the group's channels, int64 (channels,).
        number: The channel of each label.
        count: How many.
    """
    gone = removed.copy()
    left = np.arange(channels.size)
    for turn in range(1, ROUNDS + 1):
        step = round(count * turn / ROUNDS) - (channels.size - left.size)
        if step <= 0:
            continue
        matrices = [ridge_matrix(m, ~gone[number[m.layer.feature_labels]]) for m in measured]
        gram, target = channel_grams(measured, channels[left], number, matrices)
        chosen = lasso_removal(gram, target, step)
        gone[channels[left[chosen]]] = True
        left = np.delete(left, chosen)
    return np.setdiff1d(np.arange(channels.size), left)
