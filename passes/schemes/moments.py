# SPDX-License-Identifier: Apache-2.0
"""What a weight is multiplied with, as schemes use it: second moments of a layer's inputs, or how
often each row of a table is read.

An error E of a weight gives the layer's output an error of mean energy tr(E' H E), where H is the
second moment of its inputs (B. Hassibi, D. Stork, "Second order derivatives for network pruning",
NIPS 1992; E. Frantar et al., "GPTQ", ICLR 2023, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

_LEAST_SHARE = 1 / 64


@dataclass(frozen=True)
class MatrixLayout:
    """How a weight is a stack of matrices, features times outputs, one for each group.

    The weight's axes are brought into the order ``axes`` and divided to the dimensions ``split``,
    of which ``groups``, ``features`` and ``outputs`` each name those they are made of.
    """

    axes: tuple[int, ...]
    split: tuple[int, ...]
    groups: tuple[int, ...]
    features: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Numbers of groups, features and outputs."""
        sizes = [prod(self.split[i] for i in part) for part in self._parts]
        return sizes[0], sizes[1], sizes[2]

    @property
    def _parts(self) -> tuple[tuple[int, ...], ...]:
        return self.groups, self.features, self.outputs

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """An array of the weight's shape as [groups, features, outputs]."""
        divided = array.transpose(self.axes).reshape(self.split)
        order = [*self.groups, *self.features, *self.outputs]
        return divided.transpose(order).reshape(self.matrix_shape)

    def array(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """What ``matrix`` was given, an array of the weight's ``shape``."""
        order = [*self.groups, *self.features, *self.outputs]
        divided = matrix.reshape([self.split[i] for i in order]).transpose(np.argsort(order))
        moved = divided.reshape([shape[axis] for axis in self.axes])
        return np.ascontiguousarray(moved.transpose(np.argsort(self.axes)))


@dataclass(frozen=True, eq=False)
class Moments:
    """Inputs of a layer over calibration data.

    Attributes:
        inputs: Mean of x x' over rows x of the input, float [groups, features, features]; only its
            diagonal, [groups, features], where there are too many features.
        means: Mean of x, float [groups, features].
        count: Rows that they are means of.
        layout: How the weight is the matrix that x is multiplied with.
        outputs: How much a squared error of each of the layer's outputs counts, float [groups,
            outputs]; None where they count alike.
    """

    inputs: np.ndarray
    means: np.ndarray
    count: float
    layout: MatrixLayout
    outputs: np.ndarray | None = None

    @property
    def is_full(self) -> bool:
        """Whether there is more than a diagonal."""
        return self.inputs.ndim == 3

    def covariances(self) -> np.ndarray:
        """Second moments about the mean, float64 of the shape of ``inputs``, no variance below a
        billionth of the mean square."""
        means = self.means.astype(np.float64)
        if not self.is_full:
            return np.asarray(np.maximum(self.inputs - means**2, 1e-9 * self.inputs))
        found = self.inputs - means[:, :, None] * means[:, None, :]
        places = np.arange(found.shape[1])
        least = 1e-9 * self.powers
        found[:, places, places] = np.maximum(found[:, places, places], least)
        return np.asarray(found)

    @property
    def powers(self) -> np.ndarray:
        """Mean square of each feature, float64 [groups, features]."""
        if not self.is_full:
            return self.inputs.astype(np.float64)
        return np.asarray(np.einsum("gff->gf", self.inputs).astype(np.float64))


@dataclass(frozen=True, eq=False)
class RowUse:
    """How often each row of a table is read: ``counts``, float64 [rows], along ``axis`` of the
    weight."""

    counts: np.ndarray
    axis: int = 0

    def shares(self) -> np.ndarray:
        """How probable each row is, float64 [rows], none of them 0; their sum is about 1.

        Rows that were read lose a discount to all rows, as large as those read once and twice
        suggest (H. Ney, U. Essen, R. Kneser, "On structuring probabilistic dependences in
        stochastic language modelling", 1994, section 4): other data reads other rows.
        """
        counts, rows = self.counts.astype(np.float64), self.counts.size
        total = counts.sum()
        if total <= 0:
            return np.full(rows, 1 / rows)
        once, twice = float((counts == 1).sum()), float((counts == 2).sum())
        discount = once / (once + 2 * twice) if once else 0.0
        shares = np.maximum(counts - discount, 0) / total
        shares += (1 - shares.sum()) / rows
        return np.asarray(np.maximum(shares, _LEAST_SHARE / rows))
