# SPDX-License-Identifier: Apache-2.0
"""The path of the lasso's solutions from no penalty up to the one with a wanted number of factors.

Osborne, Presnell, Turlach, "A new approach to variable selection in least squares problems", IMA
J. Numer. Anal. 20, 2000, sections 3 and 4: the solution is linear in the penalty between the points
at which a factor becomes zero or leaves it. Here from the end at which all factors are there, since
few go; a symmetric sweep of the inner products takes a factor out or in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float64]

_STEPS_PER_FACTOR = 8  # more than ever seen; rounding could make a path go round in circles


def lasso_path(gram: Floats, target: Floats, wanted: int) -> tuple[Floats, float]:
    """The minimiser b of 1/2 b' G b - t' b + alpha ||b||_1 for the smallest alpha at which at most
    ``wanted`` elements of b are not zero: (b, alpha), float64 (channels,).

    Args:
        gram: G, symmetric and positive definite, float64 (channels, channels).
        target: t, float64 (channels,).
        wanted: at least 0.
    """
    channels = len(gram)
    table = np.ascontiguousarray(np.linalg.inv(gram), np.float64)  # G swept by all factors
    active = np.ones(channels, bool)
    factors = table @ target
    signs = np.where(factors < 0, -1.0, 1.0)
    alpha = 0.0
    for _ in range(_STEPS_PER_FACTOR * channels):
        if np.count_nonzero(active) <= wanted:
            break
        # As alpha rises by 1, factors fall by `slopes` and correlations of the rest rise by them.
        slopes = table @ np.where(active, signs, 0.0)
        rests = target - gram @ factors
        with np.errstate(divide="ignore", invalid="ignore"):
            falls = active & (signs * slopes > 0)
            leave = np.where(falls, np.abs(factors) / np.abs(slopes), np.inf)
            upper = np.where(~active & (slopes > 1), (alpha - rests) / (slopes - 1), np.inf)
            lower = np.where(~active & (slopes < -1), (alpha + rests) / (-slopes - 1), np.inf)
        enter = np.minimum(upper, lower)
        out, into = int(np.argmin(leave)), int(np.argmin(enter))
        step = max(min(float(leave[out]), float(enter[into])), 0.0)
        if not np.isfinite(step):
            break
        alpha += step
        factors = factors - step * np.where(active, slopes, 0.0)
        if leave[out] <= enter[into]:
            active[out], factors[out] = False, 0.0
            _pivot(table, out, -1.0)
        else:
            active[into], signs[into] = True, 1.0 if upper[into] <= lower[into] else -1.0
            _pivot(table, into, 1.0)
    return factors, alpha


def _pivot(table: Floats, index: int, sign: float) -> None:
    """Takes a factor in (sign 1) or out (-1) of the swept inner products: with A the factors that
    are in and I the others, G_AA^-1, G_IA G_AA^-1 and minus the rest of G_II (Goodnight, "A
    Tutorial on the SWEEP Operator", The American Statistician 33, 1979)."""
    column, pivot = table[index].copy(), float(table[index, index])
    # In place: a matrix of a thousand channels is larger than the cache, and this is most of the
    # path's time. The transpose is what BLAS takes for a table in rows.
    scipy.linalg.blas.dger(-1.0 / pivot, column, column, a=table.T, overwrite_a=1)
    table[index] = table[:, index] = sign * column / pivot
    table[index, index] = -1.0 / pivot
