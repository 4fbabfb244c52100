# SPDX-License-Identifier: Apache-2.0
"""Another scheme on a scaled weight: divided by a magnitude, or moved to 0 … 1, per tensor, row,
group or bucket.

The scaling function of Polino, Pascanu, Alistarh 2018, "Model compression via distillation and
quantization", section 3.1; with points inside it is the quantiser of its section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.codebook import Codebook
from passes.schemes.partition import Granularity, Partition, check_partition, partition
from passes.schemes.scaling import Scaling, ends_of, norm_of, representable_scale
from passes.schemes.weight_values import finite_float32, importance_of, mask_of


@dataclass(frozen=True, eq=False)
class ScaledParameters(Parameters):
    """A scaled weight.

    Attributes:
        inner: Of the float32 weight (value - offset) / scale: of the weight's shape, or with blocks
            [scales, block_size], the last bucket padded.
        scale: float32, positive, of ``Partition.scale_shape``.
        offset: float32, ``scale``'s shape; None where there is none.
        partition: Which elements share a scale, and the weight's shape.
        dtype: The weight's own type.
    """

    inner: Parameters
    scale: np.ndarray
    offset: np.ndarray | None
    partition: Partition
    dtype: np.dtype

    name: ClassVar[str] = "scaled"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.partition.shape

    def decode(self) -> np.ndarray:
        """float32 arithmetic, then rounded to the weight's type."""
        values = self.inner.decode()
        if self.partition.block_size:
            values = self.partition.unfold(values)
        values = values * self.partition.spread(self.scale)
        if self.offset is not None:
            values = values + self.partition.spread(self.offset)
        return np.asarray(values).astype(self.dtype, copy=False)

    def bits(self) -> float:
        """The inner bits, and 32 per scale and offset."""
        offset = 0 if self.offset is None else 32 * self.offset.size
        return self.inner.bits() + 32 * self.scale.size + offset

    def children(self) -> tuple[Parameters, ...]:
        return (self.inner,)


@dataclass(frozen=True)
class Scaled:
    """Fits ``inner`` to (weight - offset) / scale.

    Idempotent where ``inner`` is and keeps the ends of the scaled range.

    Attributes:
        inner: What is fitted to the scaled weight; importance is scaled along.
        scaling: ``absmax``: the scale is the largest magnitude; ``linear``: offset and scale are
            the least value and the range, which leaves no zero for pruned elements; ``absnorm``:
            the scale is the Euclidean norm. Where it would be zero it is 1.
        granularity: One scale per tensor, row, group or bucket.
        axis: The axis of ``row``; None for the output channels', where known, else the first.
        group_size: Wanted elements per group or bucket; 32 and 256 where None.
    """

    inner: Scheme = field(default_factory=Codebook)
    scaling: Scaling = "absmax"
    granularity: Granularity = "tensor"
    axis: int | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        if self.scaling not in ("absmax", "linear", "absnorm"):
            raise SchemeError(
                f"scaled: scaling must be absmax, linear or absnorm, not {self.scaling!r}"
            )
        check_partition("scaled", self.granularity, self.group_size)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> ScaledParameters:
        """Fits a float32, float16 or bfloat16 array of any shape.

        Raises SchemeError for an empty array, NaN or infinity, linear scaling of a pruned weight,
        and where ``inner`` does.
        """
        context = context or FitContext()
        values, mask = finite_float32(weight), mask_of(weight, context)
        if mask is not None and self.scaling == "linear":
            raise SchemeError("scaled: linear scaling has no zero for pruned elements: take absmax")
        part = partition(
            "scaled", values.shape, self.granularity, self.axis, self.group_size, context
        )
        folded, kept = part.fold(values), part.fold_kept(mask)
        smallest, largest = ends_of(folded, kept)
        offset = None
        if self.scaling == "linear":
            size, offset = largest - smallest, smallest.astype(np.float32).reshape(part.scale_shape)
        elif self.scaling == "absmax":
            size = np.maximum(-smallest, largest)
        else:
            size = norm_of(folded, kept)
        scale = representable_scale(size, np.dtype(np.float32)).reshape(part.scale_shape)
        moved = values if offset is None else values - part.spread(offset)
        importance = importance_of(weight, context)
        if importance is not None:
            importance = importance * np.square(part.spread(scale), dtype=np.float64)
        previous = context.previous
        inner_context = replace(
            context,
            channel_axis=None if part.block_size else context.channel_axis,
            mask=None if mask is None else _blocks(mask, part),
            importance=None if importance is None else _blocks(importance, part),
            previous=previous.inner if isinstance(previous, ScaledParameters) else None,
        )
        scaled = _blocks(np.asarray(moved / part.spread(scale)), part)
        return ScaledParameters(
            self.inner.fit(scaled, inner_context), scale, offset, part, weight.dtype
        )


def _blocks(array: np.ndarray, part: Partition) -> np.ndarray:
    """``array`` as [scales, block_size] where there are blocks."""
    return np.asarray(part.fold(array)[0]) if part.block_size else array
