# SPDX-License-Identifier: Apache-2.0
"""A weight as a matrix, and the two layers that a product of factors stands for.

`out_in`: output channels x everything else; the factors are a layer with ``rank`` filters of the
full kernel and a 1 x 1 layer (Zhang et al. 2016, "Accelerating Very Deep Convolutional Networks",
section 3.1). `spatial`: (output channels x last kernel axis) x (input channels x other kernel
axes); the factors are a k x 1 and a 1 x k layer (Jaderberg et al. 2014, "Speeding up Convolutional
Neural Networks with Low Rank Expansions", scheme 2; the second reshape of Idelbayev and
Carreira-Perpinan 2020, "Low-rank Compression of Neural Nets", section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from passes.errors import SchemeError

Reshape = Literal["out_in", "spatial"]


@dataclass(frozen=True)
class Unfolding:
    """How a weight of ``shape`` becomes a matrix: its axes in the order ``axes``, the first
    ``num_left`` of which are the matrix's rows.

    Attributes:
        shape: The weight's dimensions, at least two.
        axes: A permutation.
        num_left: Axes that form the rows.
        is_layers: Whether the factors have the layout of two convolutions (output channels, input
            channels, taps); otherwise they are matrices.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    num_left: int
    is_layers: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], reshape: Reshape, channel_axis: int | None) -> Unfolding:
        """The unfolding of a matrix (as it is), a convolution, or another weight (its channel axis
        against the rest). SchemeError for fewer than two dimensions and for `spatial` of what is no
        convolution."""
        rank = len(shape)
        if rank < 2:
            raise SchemeError(f"low rank: a weight of shape {shape} has no two sides to factorise")
        if rank == 2:
            return cls(shape, (0, 1), 1, False)
        channel = 0 if channel_axis is None else channel_axis % rank
        if reshape == "spatial":
            if channel != 0:
                raise SchemeError("low rank: reshape spatial needs output channels on axis 0")
            return cls(shape, (0, rank - 1, *range(1, rank - 1)), 2, True)
        others = tuple(axis for axis in range(rank) if axis != channel)
        return cls(shape, (channel, *others), 1, channel == 0)

    @property
    def permuted(self) -> tuple[int, ...]:
        """The weight's dimensions in the order ``axes``."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        permuted = self.permuted
        return prod(permuted[: self.num_left]), prod(permuted[self.num_left :])

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """``weight`` as a matrix of ``matrix_shape``."""
        return weight.transpose(self.axes).reshape(self.matrix_shape)

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of ``matrix``."""
        folded = matrix.reshape(self.permuted).transpose(np.argsort(self.axes))
        return np.ascontiguousarray(folded)

    def left_shape(self, rank: int) -> tuple[int, ...]:
        """Of the second layer: (n, r), (n, r, 1, 1) or (n, r, 1, k)."""
        if not self.is_layers:
            return self.matrix_shape[0], rank
        ones = (1,) * (len(self.shape) - 3)
        return self.shape[0], rank, *ones, self.shape[-1] if self.num_left == 2 else 1

    def right_shape(self, rank: int) -> tuple[int, ...]:
        """Of the first layer: (r, m), (r, m, k, k) or (r, m, k, 1)."""
        if not self.is_layers:
            return rank, self.matrix_shape[1]
        last = 1 if self.num_left == 2 else self.shape[-1]
        return rank, *self.shape[1:-1], last

    @property
    def left_is_moved(self) -> bool:
        """Whether the left factor's rank axis has to move to the end to give a matrix."""
        return self.is_layers and self.num_left == 2

    def left_layer(self, matrix: np.ndarray) -> np.ndarray:
        """The left factor (rows, r) in the layout of ``left_shape``."""
        shape = self.left_shape(matrix.shape[1])
        if not self.left_is_moved:
            return matrix.reshape(shape)
        rolled = (shape[0], *shape[2:], shape[1])
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(rolled), -1, 1))

    def left_matrix(self, layer: np.ndarray) -> np.ndarray:
        """The inverse of ``left_layer``."""
        moved = np.moveaxis(layer, 1, -1) if self.left_is_moved else layer
        return np.ascontiguousarray(moved).reshape(self.matrix_shape[0], -1)

    def right_layer(self, matrix: np.ndarray) -> np.ndarray:
        """The right factor (r, columns) in the layout of ``right_shape``."""
        return matrix.reshape(self.right_shape(matrix.shape[0]))

    def right_matrix(self, layer: np.ndarray) -> np.ndarray:
        """The inverse of ``right_layer``."""
        return layer.reshape(layer.shape[0], -1)
