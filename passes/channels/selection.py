# SPDX-License-Identifier: Apache-2.0
"""Which channels to remove: greedily, by the lasso, by the norm of their filters, or at random.

Greedy and lasso look at what each channel c adds to the output of the next layer, y_c. Both need
only the inner products of those parts, G[c, d] = <y_c, y_d>, and not the parts themselves.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from passes.channels.lasso_path import lasso_path
from passes.errors import SettingsError

Selection = Literal["greedy", "lasso", "l1", "l2", "random"]
SELECTIONS: tuple[str, ...] = get_args(Selection)
MEASURED = ("greedy", "lasso")
"""The selections that need activations."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_ROUNDING = 1e-7  # of the trace: moments are summed in single precision


def greedy_removal(gram: Floats, count: int) -> Indices:
    """``count`` channels to remove, in the order found: each time the one that least raises
    the squared error, the norm of the sum of the removed channels' parts.

    Luo, Wu, Lin, "ThiNet", ICCV 2017, section 3.2 and algorithm 1. With s[c] the sum of G[c, d]
    over removed d, the error grows by G[c, c] + 2 s[c]: a step costs one row of G.

    Args:
        gram: float64 (channels, channels), symmetric.
        count: how many, at most the number of channels.
    """
    diagonal, cross = np.diagonal(gram), np.zeros(len(gram))
    left = np.ones(len(gram), bool)
    removed = np.empty(min(count, len(gram)), np.int64)
    for place in range(removed.size):
        growth = np.where(left, diagonal + 2 * cross, np.inf)
        chosen = int(np.argmin(growth))
        removed[place], left[chosen] = chosen, False
        cross += gram[:, chosen]
    return removed


def lasso_removal(gram: Floats, target: Floats, count: int) -> Indices:
    """``count`` channels to remove, ascending: those whose factor the lasso makes zero.

    He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017,
    section 3.1: min over b of 1/2 ||Y - sum_c b_c y_c||^2 + alpha ||b||_1, with the smallest alpha
    that leaves the wanted number of factors (``lasso_path``).

    Args:
        gram: float64 (channels, channels), <y_c, y_d>.
        target: float64 (channels,), <y_c, Y> for the output Y that is wanted.
        count: how many, at most the number of channels.
    """
    channels = len(gram)
    wanted = channels - min(count, channels)
    strengths = np.sqrt(np.maximum(np.diagonal(gram), 0))
    peak = float(np.abs(target).max(initial=0.0))
    if wanted == 0 or peak == 0:
        return np.sort(np.argsort(strengths, kind="stable")[: channels - wanted])
    # Rounding may have made the smallest eigenvalues negative, where nothing bounds the factors.
    gram = gram + np.eye(channels) * _ROUNDING * float(strengths @ strengths)
    factors, _ = lasso_path(gram, target, wanted)
    # Channels without a factor come first, the weakest of them before the others.
    order = np.lexsort((strengths, np.abs(factors) * strengths))
    return np.sort(order[: channels - wanted])


def smallest(scores: Floats, count: int) -> Indices:
    """The ``count`` channels with the smallest scores, ascending; of equals the first."""
    return np.sort(np.argsort(scores, kind="stable")[:count])


def random_removal(channels: int, count: int, generator: np.random.Generator) -> Indices:
    """``count`` of ``channels`` channels, ascending."""
    return np.sort(generator.choice(channels, min(count, channels), replace=False))


def check_selection(name: str) -> Selection:
    """``name``, if it is a selection. Raises ``SettingsError``."""
    if name not in SELECTIONS:
        raise SettingsError(f"selection {name!r}: expected one of {', '.join(SELECTIONS)}")
    return name  # type: ignore[return-value]
