# SPDX-License-Identifier: Apache-2.0
"""What each use of a weight multiplies it with, as rows of features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.receptive_fields import ReceptiveFields, draw_places
from passes.schemes.moments import MatrixLayout

Array = npt.NDArray[Any]
Found = Mapping[str, Array]
"""Arrays of one run, by the names of the values."""


class LayerInput(ABC):
    """One use of a weight in a layer.

    Attributes:
        layout: How the weight is a matrix there.
    """

    layout: MatrixLayout

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The values that it needs."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Uses of the same key see the same rows."""

    @abstractmethod
    def rows(
        self, found: Found, masks: Sequence[Array], count: int, generator: np.random.Generator
    ) -> Array:
        """At most about ``count`` rows of one run, drawn at random: (groups, rows, features).
        ``masks`` are 0 at padding, which is left out where it can be told."""


@dataclass(frozen=True, eq=False)
class ValueInput(LayerInput):
    """The value ``name`` alone."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)


@dataclass(frozen=True, eq=False)
class MatrixInput(ValueInput):
    """The value ``name`` of a MatMul or Gemm: its features are along ``axis``, its groups, where
    the weight has several matrices, along all axes but the last two."""

    axis: int
    layout: MatrixLayout

    @property
    def key(self) -> Hashable:
        return ("matrix", self.name, self.axis, self.layout.matrix_shape[0] > 1)

    def rows(
        self, found: Found, masks: Sequence[Array], count: int, generator: np.random.Generator
    ) -> Array:
        given = found[self.name]
        array = given[None] if given.ndim == 1 else np.moveaxis(given, self.axis, -1)
        groups, features = self.layout.matrix_shape[0], array.shape[-1]
        if groups > 1:
            batched = array.reshape(groups, -1, features)
            return batched[:, draw_places(batched.shape[1], count, generator)]
        flat, kept = array.reshape(-1, features), real_rows(array.shape[:-1], masks)
        if kept is not None:
            flat = flat[kept]
        return np.asarray(flat[draw_places(len(flat), count, generator)][None])


@dataclass(frozen=True, eq=False)
class ConvolutionInput(LayerInput):
    """The input of a Conv: a row is what one output position sees of the channels of a group."""

    node: ir.Node
    kernel: tuple[int, ...]
    layout: MatrixLayout

    @property
    def names(self) -> tuple[str, ...]:
        return (str(self.node.inputs[0].name),) if self.node.inputs[0] is not None else ()

    @property
    def key(self) -> Hashable:
        return ("conv", id(self.node))

    def rows(
        self, found: Found, masks: Sequence[Array], count: int, generator: np.random.Generator
    ) -> Array:
        given = found[self.names[0]]
        fields = ReceptiveFields(self.node, self.kernel, given.shape[2:])
        grid = (given.shape[0], *fields.sizes)
        places = draw_places(prod(grid), count, generator)
        sample, *spots = (np.asarray(part) for part in np.unravel_index(places, grid))
        patches = fields.patches(given, sample, spots)
        groups, features, _ = self.layout.matrix_shape
        return np.asarray(np.moveaxis(patches.reshape(len(patches), groups, features), 1, 0))


@dataclass(frozen=True, eq=False)
class TransposedInput(ValueInput):
    """The input of a ConvTranspose: each position gives its channels to all taps."""

    layout: MatrixLayout

    @property
    def key(self) -> Hashable:
        return ("transposed", self.name, self.layout.matrix_shape[:2])

    def rows(
        self, found: Found, masks: Sequence[Array], count: int, generator: np.random.Generator
    ) -> Array:
        groups, features, _ = self.layout.matrix_shape
        given = np.moveaxis(found[self.name], 1, -1).reshape(-1, groups, features)
        return np.moveaxis(given[draw_places(len(given), count, generator)], 1, 0)


@dataclass(frozen=True, eq=False)
class SequenceInput(ValueInput):
    """What a recurrent layer takes at each step: the input ``name``, (steps, batch, features), or
    (batch, steps, features) with ``batch_first``; the same for each direction."""

    batch_first: bool
    layout: MatrixLayout

    @property
    def key(self) -> Hashable:
        return ("sequence", self.name, self.layout.matrix_shape[0])

    def rows(
        self, found: Found, masks: Sequence[Array], count: int, generator: np.random.Generator
    ) -> Array:
        array = found[self.name]
        flat, kept = array.reshape(-1, array.shape[-1]), None
        if self.batch_first:
            kept = real_rows(array.shape[:-1], masks)
        if kept is not None:
            flat = flat[kept]
        drawn = flat[draw_places(len(flat), count, generator)]
        return np.broadcast_to(drawn, (self.layout.matrix_shape[0], *drawn.shape))


@dataclass(frozen=True, eq=False)
class StateInput(LayerInput):
    """The hidden states that a recurrent layer goes on from: those of its output ``states``,
    (steps, directions, batch, hidden), one step late, behind the ``first`` ones, where given, of
    (directions, batch, hidden); with ``batch_first`` the batch is the first axis of both.

    The reset gate that a GRU may multiply them with is not looked at.
    """

    states: str
    first: str | None
    backward: tuple[bool, ...]
    batch_first: bool
    layout: MatrixLayout

    @property
    def names(self) -> tuple[str, ...]:
        return (self.states,) if self.first is None else (self.states, self.first)

    @property
    def key(self) -> Hashable:
        return ("state", self.states, self.first)

    def rows(
        self, found: Found, masks: Sequence[Array], count: int, generator: np.random.Generator
    ) -> Array:
        states = found[self.states]
        if self.batch_first:
            states = states.transpose(1, 2, 0, 3)
        first = np.zeros_like(states[0]) if self.first is None else found[self.first]
        if self.batch_first and self.first is not None:
            first = first.transpose(1, 0, 2)
        parts = []
        for direction, backward in enumerate(self.backward):
            run = states[:, direction][::-1] if backward else states[:, direction]
            before = np.concatenate([first[direction][None], run[:-1]])
            parts.append(before.reshape(-1, before.shape[-1]))
        stacked = np.stack(parts)
        return stacked[:, draw_places(stacked.shape[1], count, generator)]


@dataclass(frozen=True)
class TableInput:
    """Which rows of a table, along ``axis`` of the weight, a Gather reads: those of the value
    ``indices``; or a Slice: from ``start`` to ``stop``."""

    axis: int
    indices: str | None = None
    start: str | None = None
    stop: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The values that it needs."""
        return tuple(name for name in (self.indices, self.start, self.stop) if name is not None)

    def counts(self, found: Found, masks: Sequence[Array], rows: int) -> Array:
        """How often one run reads each row, float64 [rows]; padding does not count."""
        if self.indices is None:
            ends = [found[name].reshape(-1)[0] for name in self.names]
            start, stop, _ = slice(int(ends[0]), int(ends[1])).indices(rows)
            return np.bincount(np.arange(start, stop), minlength=rows).astype(np.float64)
        read = np.asarray(found[self.indices])
        kept = real_rows(read.shape, masks)
        flat = read.reshape(-1) if kept is None else read.reshape(-1)[kept]
        flat = np.where(flat < 0, flat + rows, flat).astype(np.int64)
        return np.bincount(flat[(flat >= 0) & (flat < rows)], minlength=rows).astype(np.float64)


def real_rows(lead: tuple[int, ...], masks: Sequence[Array]) -> npt.NDArray[np.bool_] | None:
    """Which rows are none of padding, flat, by the mask whose shape or size ``lead`` has; None
    where no mask fits or nothing would be left."""
    for mask in masks:
        if lead in (mask.shape, (mask.size,)):
            kept = np.asarray(mask.reshape(-1) != 0)
            return kept if kept.any() else None
    return None
