# SPDX-License-Identifier: Apache-2.0
"""The groups of weights that pruning takes or leaves together: elements, kernels, filters, blocks.

Kernels are two-dimensional slices of a convolution, one input to one output channel; filters are
all weights of one output channel (Mao et al. 2017, "Exploring the regularity of sparse structure in
convolutional neural networks", section 3: vector, kernel and filter level). Blocks are tiles of the
weight as a matrix, channels by everything else (Narang et al. 2017, "Block-sparse recurrent neural
networks", section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from passes.errors import SchemeError

Granularity = Literal["element", "kernel", "filter", "block"]


@dataclass(frozen=True, eq=False)
class Groups:
    """Which group each weight belongs to.

    Attributes:
        shape: The weight's dimensions.
        count: How many groups there are; they are numbered from 0.
        numbers: int32, broadcastable to ``shape``; None where each element is a group.
    """

    shape: tuple[int, ...]
    count: int
    numbers: np.ndarray | None = None

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of ``values`` (the weight's shape) in each group, float64 [count]."""
        if self.numbers is None:
            return values.reshape(-1).astype(np.float64)
        flat = np.broadcast_to(self.numbers, self.shape).reshape(-1)
        return np.bincount(flat, weights=values.reshape(-1), minlength=self.count)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """``values`` [count] brought to the weight's shape: each element gets its group's."""
        if self.numbers is None:
            return values.reshape(self.shape)
        return np.broadcast_to(values[self.numbers], self.shape)


def groups_of(
    shape: tuple[int, ...],
    granularity: Granularity,
    channel_axis: int | None = None,
    block: tuple[int, int] = (1, 1),
) -> Groups:
    """The groups of a weight of ``shape``; tiles at the border may be smaller.

    Raises SchemeError for kernels of a weight with fewer than three dimensions.
    """
    rank = len(shape)
    if granularity == "element" or rank == 0:
        return Groups(shape, prod(shape))
    if granularity == "filter":
        axis = output_axis(rank, channel_axis)
        return Groups(shape, shape[axis], _along(np.arange(shape[axis]), axis, rank))
    if granularity == "kernel":
        if rank < 3:
            raise SchemeError(
                f"prune: a weight of {rank} dimensions has no kernels; take element or filter"
            )
        first, second = channel_axes(rank, channel_axis)
        numbers = _along(np.arange(shape[first]) * shape[second], first, rank)
        numbers = numbers + _along(np.arange(shape[second]), second, rank)
        return Groups(shape, shape[first] * shape[second], numbers.astype(np.int32))
    return _blocks(shape, output_axis(rank, channel_axis), block)


def output_axis(rank: int, channel_axis: int | None) -> int:
    """The axis of output channels, the first one where it is not known."""
    if channel_axis is None:
        return 0
    if not -rank <= channel_axis < rank:
        raise SchemeError(f"prune: channel axis {channel_axis} is outside of rank {rank}")
    return channel_axis % rank


def channel_axes(rank: int, channel_axis: int | None) -> tuple[int, int]:
    """The two axes of channels, in the weight's order: the first two, or with taps in front (as
    Keras stores kernels) the last two."""
    return (0, 1) if output_axis(rank, channel_axis) < 2 else (rank - 2, rank - 1)


def input_axis(rank: int, channel_axis: int | None) -> int:
    """The axis that is summed over: input channels; of a vector its only one."""
    if rank < 2:
        return 0
    first, second = channel_axes(rank, channel_axis)
    return second if output_axis(rank, channel_axis) == first else first


def _blocks(shape: tuple[int, ...], axis: int, block: tuple[int, int]) -> Groups:
    """Tiles of the matrix that a matrix is itself; of other ranks of [channels, all the rest]."""
    rank = len(shape)
    if rank == 2:
        rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    else:
        rest = [i for i in range(rank) if i != axis]
        rows = _along(np.arange(shape[axis]), axis, rank)
        grid = np.arange(prod(shape[i] for i in rest)).reshape([shape[i] for i in rest])
        columns = np.expand_dims(grid, axis)
    per_row = -(-(int(columns.max(initial=0)) + 1) // block[1])
    numbers = rows // block[0] * per_row + columns // block[1]
    count = -(-(int(rows.max(initial=0)) + 1) // block[0]) * per_row
    return Groups(shape, count, numbers.astype(np.int32))


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector as an array that broadcasts along one axis of ``rank``."""
    return values.astype(np.int32).reshape([-1 if i == axis else 1 for i in range(rank)])
