# SPDX-License-Identifier: Apache-2.0
"""How features of a layer make up for each other's errors: the factors of its second moments.

E. Frantar et al., "GPTQ", ICLR 2023, section 3.3: with the upper triangular U of H^-1 = U' U, an
error e of feature i is best made up for by moving each later feature j by -e U[i, j] / U[i, i];
what it costs then is e^2 / U[i, i]^2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy

_LEAST_DAMPING, _MOST_DAMPING = 1e-6, 1e6


@dataclass(frozen=True, eq=False)
class Feedback:
    """The features of one group, in the order in which they are rounded.

    Attributes:
        order: int64 [features], those that matter most first.
        inputs: H in that order, float32 [features, features], damped.
        coupling: float32 [features, features], upper triangular: -U[i, j] / U[i, i].
        costs: float64 [features]: 1 / U[i, i]^2, the mean square of each feature that later ones do
            not explain.
    """

    order: np.ndarray
    inputs: np.ndarray
    coupling: np.ndarray
    costs: np.ndarray

    def unordered(self, values: np.ndarray) -> np.ndarray:
        """Values of features in this order, in their own."""
        found = np.empty_like(values)
        found[self.order] = values
        return found


def feedback_of_groups(inputs: np.ndarray, damping: float) -> list[Feedback]:
    """The factors of all groups, float [groups, features, features], in such units that costs have
    the mean 1."""
    groups = [feedback_of(part, damping) for part in inputs]
    mean = float(np.mean([group.costs.mean() for group in groups]))
    for group in groups:
        np.divide(group.inputs, np.float32(mean), out=group.inputs)
    return [replace(group, costs=group.costs / mean) for group in groups]


def feedback_of(inputs: np.ndarray, damping: float) -> Feedback:
    """The factors of one group.

    Args:
        inputs: H, float [features, features], symmetric, of no negative eigenvalue.
        damping: Share of the mean square that is added to each feature's, at least a millionth;
            more where the matrix is singular all the same. Without any input all features count
            alike.
    """
    moments = np.asarray(inputs)
    powers = np.diagonal(moments).astype(np.float64)
    mean = float(powers.mean()) if powers.size else 0.0
    if not mean > 0:
        moments, mean = np.eye(len(moments), dtype=np.float32), 1.0
        powers = np.ones(len(moments))
    order = np.argsort(-powers, kind="stable")
    ridge = max(damping, _LEAST_DAMPING)
    while True:
        # With the axes reversed a lower factor R of H = R R' is the upper one; U = R^-1. All of it
        # happens in the one float64 matrix.
        backwards = moments[np.ix_(order[::-1], order[::-1])].astype(np.float64).T
        np.fill_diagonal(backwards, np.diagonal(backwards) + ridge * mean)
        factor, failed = scipy.linalg.lapack.dpotrf(backwards, lower=1, clean=1, overwrite_a=1)
        if not failed:
            inverse, failed = scipy.linalg.lapack.dtrtri(factor, lower=1, overwrite_c=1)
        if not failed:
            break
        ridge *= 10
        if ridge > _MOST_DAMPING:
            raise scipy.linalg.LinAlgError("second moments that no damping makes positive")
    upper = inverse[::-1, ::-1]
    pivots = np.diagonal(upper).copy()
    np.divide(upper, -pivots[:, None], out=upper)
    damped = moments[np.ix_(order, order)].astype(np.float32, copy=False)
    np.fill_diagonal(damped, powers[order] + ridge * mean)
    return Feedback(order, damped, upper.astype(np.float32, order="C"), 1.0 / np.square(pivots))
