# SPDX-License-Identifier: Apache-2.0
"""Which elements of a weight are transformed together: axes, cut into blocks, brought to the end.

Folding gives [A, B, F]: F elements that one transform mixes, the last axis of them fastest, in A
x B places. After the transform F counts frequencies, and it is the axis along which neighbours
are coded, so that the coder's classes see each frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from passes.errors import SchemeError
from passes.schemes.partition import largest_divisor

MAX_SIZE = 2048
"""Elements that one transform mixes along one axis, at most: its basis is made at every load."""


@dataclass(frozen=True)
class Folding:
    """How a weight of ``shape`` is folded.

    Attributes:
        shape: The weight's dimensions.
        axes: The transformed axes, ascending.
        sizes: Elements that are mixed along each of them; each divides its dimension.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def split(self) -> tuple[int, ...]:
        """The weight's dimensions with each transformed one as (blocks, size)."""
        parts: list[int] = []
        for axis, length in enumerate(self.shape):
            if axis in self.axes:
                size = self.sizes[self.axes.index(axis)]
                parts += [length // size, size]
            else:
                parts.append(length)
        return tuple(parts)

    @property
    def order(self) -> tuple[int, ...]:
        """The permutation of ``split`` that brings the mixed axes to the end."""
        mixed, at = [], 0
        for axis in range(len(self.shape)):
            if axis in self.axes:
                mixed.append(at + 1)
                at += 1
            at += 1
        return (*(i for i in range(len(self.split)) if i not in mixed), *mixed)

    @property
    def folded_shape(self) -> tuple[int, int, int]:
        """(A, B, F)."""
        places = [self.split[i] for i in self.order[: -len(self.axes)]]
        places = [length for length in places if length > 1] or [1]
        return places[0], prod(places[1:]), prod(self.sizes)

    def fold(self, weight: np.ndarray) -> np.ndarray:
        """``weight`` [shape] as [A, B, F]."""
        return weight.reshape(self.split).transpose(self.order).reshape(self.folded_shape)

    def unfold(self, folded: np.ndarray) -> np.ndarray:
        """[A, B, F] as the weight's shape."""
        moved = folded.reshape([self.split[i] for i in self.order])
        return moved.transpose(np.argsort(self.order)).reshape(self.shape)


def folding_of(
    shape: tuple[int, ...],
    axes: Sequence[int] | None,
    block: int | Sequence[int] | None,
    limit: int | None = MAX_SIZE,
) -> Folding:
    """The folding of a weight.

    Args:
        shape: Its dimensions.
        axes: Which to transform; None for the taps of a convolution (all axes from the third on),
            and for the last axis of a matrix or vector.
        block: Wanted elements per transform, one number or one per axis (0: the whole axis); the
            largest divisor of the dimension up to it is taken, the whole dimension where that is 1.
        limit: Elements along one axis, at most.

    Raises:
        SchemeError: no such axis, an axis named twice, or one too long for one transform.
    """
    rank = len(shape)
    if not rank:
        raise SchemeError("transform: the tensor has no axes")
    if axes is None:
        axes = range(2, rank) if rank > 2 else (rank - 1,)
    if not axes or any(not -rank <= axis < rank for axis in axes):
        raise SchemeError(f"transform: axes {tuple(axes)} are not axes of rank {rank}")
    blocks = [block or 0] * len(axes) if not isinstance(block, Sequence) else list(block)
    if len(blocks) != len(axes):
        raise SchemeError(f"transform: {len(blocks)} block sizes for {len(axes)} axes")
    by_axis = {axis % rank: length for axis, length in zip(axes, blocks, strict=True)}
    if len(by_axis) != len(axes):
        raise SchemeError(f"transform: axes {tuple(axes)} name one axis twice")
    ordered = tuple(sorted(by_axis))
    sizes = tuple(
        largest_divisor(shape[axis], by_axis[axis]) if by_axis[axis] else shape[axis]
        for axis in ordered
    )
    if limit is not None and max(sizes) > limit:
        raise SchemeError(
            f"transform: {max(sizes)} elements along one axis, at most {limit}: give a block"
        )
    return Folding(shape, ordered, sizes)
