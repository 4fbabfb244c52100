# SPDX-License-Identifier: Apache-2.0
"""Which elements of a weight share a scale: all, an index of one axis, a group, or a bucket.

Buckets are flat runs of elements (Polino, Pascanu, Alistarh 2018, "Model compression via
distillation and quantization", section 3.1); groups never cross a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext

Granularity = Literal["tensor", "row", "group", "bucket"]
_GROUP, _BUCKET = 32, 256


@dataclass(frozen=True)
class Partition:
    """Divides the elements of an array among scales.

    Attributes:
        shape: The array's dimensions.
        axis: The axis of a scale per row or per group (then the last one); None per tensor or
            bucket.
        block_size: Elements per group along the last axis, or per bucket of the flat array, of
            which the last may be shorter; 0 without.
    """

    shape: tuple[int, ...]
    axis: int | None = None
    block_size: int = 0

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """() per tensor, (shape[axis],) per row, (..., groups) per group, (buckets,) per bucket."""
        if self.axis is None:
            return (-(-prod(self.shape) // self.block_size),) if self.block_size else ()
        if self.block_size:
            return (*self.shape[:-1], self.shape[-1] // self.block_size)
        return (self.shape[self.axis],)

    @property
    def padding(self) -> int:
        """Elements that the last bucket lacks."""
        return prod(self.scale_shape) * self.block_size - prod(self.shape) if self.block_size else 0

    def fold(self, values: np.ndarray) -> np.ndarray:
        """[before, scales, inside]: index i of the middle axis holds what has scale i.

        Padding repeats the last element; without it the result is a view where that is possible.
        """
        if self.padding:
            values = np.pad(values.reshape(-1), (0, self.padding), mode="edge")
        if self.block_size:
            return values.reshape(1, -1, self.block_size)
        if self.axis is None:
            return values.reshape(1, 1, -1)
        return values.reshape(prod(self.shape[: self.axis]), self.shape[self.axis], -1)

    def fold_kept(self, mask: np.ndarray | None) -> np.ndarray | None:
        """``mask`` folded, False in the padding; None where all elements count."""
        if mask is None and not self.padding:
            return None
        given = np.ones(self.shape, bool) if mask is None else mask
        folded = self.fold(given)
        if self.padding:
            folded.reshape(-1)[-self.padding :] = False
        return folded

    def unfold(self, folded: np.ndarray) -> np.ndarray:
        """What ``fold`` was given, padding removed."""
        if self.padding:
            folded = folded.reshape(-1)[: -self.padding]
        return folded.reshape(self.shape)

    def spread(self, scales: np.ndarray) -> np.ndarray:
        """Values of ``scale_shape``, shaped to broadcast against the array."""
        if self.block_size and self.axis is None:
            return np.repeat(scales, self.block_size)[: prod(self.shape)].reshape(self.shape)
        if self.block_size:
            return np.repeat(scales, self.block_size, axis=-1)
        if self.axis is None:
            return scales
        return scales.reshape([-1 if i == self.axis else 1 for i in range(len(self.shape))])


def partition(
    scheme: str,
    shape: tuple[int, ...],
    granularity: Granularity,
    axis: int | None,
    group_size: int | None,
    context: FitContext,
) -> Partition:
    """The partition that a scheme's options ask for.

    Args:
        scheme: Its name, for errors.
        shape: Of the weight; scalars, and what is not longer than one bucket, have one scale.
        granularity: As the type says.
        axis: The axis of ``row``; None for the context's channel axis, else the first one.
        group_size: Elements per group (the largest divisor of the last axis up to it is used; 32
            where None) or per bucket (256 where None).

    Raises:
        SchemeError: the axis is outside of the shape.
    """
    if granularity == "tensor" or not shape:
        return Partition(shape)
    if granularity == "row":
        wanted = axis if axis is not None else context.channel_axis or 0
        if not -len(shape) <= wanted < len(shape):
            raise SchemeError(f"{scheme}: axis {wanted} is outside of rank {len(shape)}")
        return Partition(shape, wanted % len(shape))
    if granularity == "group":
        size = largest_divisor(shape[-1], group_size or _GROUP)
        return Partition(shape, len(shape) - 1, size)
    size = group_size or _BUCKET
    return Partition(shape, None, size if size < prod(shape) else 0)


def check_partition(scheme: str, granularity: str, group_size: int | None) -> None:
    """SchemeError for options that ``partition`` does not know."""
    if granularity not in get_args(Granularity):
        known = ", ".join(get_args(Granularity))
        raise SchemeError(f"{scheme}: granularity must be one of {known}, not {granularity!r}")
    if group_size is not None and group_size < 1:
        raise SchemeError(f"{scheme}: group_size must be at least 1, not {group_size}")
    if group_size is not None and granularity not in ("group", "bucket"):
        raise SchemeError(f"{scheme}: group_size goes with granularity group or bucket")


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit``, or ``number`` where that is
    1."""
    best = next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
    return number if best == 1 and limit > 1 else best
