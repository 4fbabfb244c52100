# SPDX-License-Identifier: Apache-2.0
"""Small wide segments that between them use every feature of FORMAT.md 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tests.wide_reference_encoder import (
    Ints,
    TableSet,
    Tensor,
    Words,
    decoded_symbols,
    encode_segment,
)


@dataclass
class Sample:
    """A segment to encode: its name, its tensors, its sets and how its side information is kept."""

    name: str
    tensors: list[Tensor]
    sets: list[TableSet] = field(default_factory=lambda: [TableSet()])
    wide: bool = False
    nested_row: int = 0
    nested_sets: tuple[TableSet, ...] = (TableSet(),)
    share: int = 1

    def encode(self) -> Words:
        """The blob, uint16 [n]."""
        return encode_segment(
            self.tensors,
            self.sets,
            wide=self.wide,
            nested_row=self.nested_row,
            nested_sets=self.nested_sets,
            share=self.share,
        )

    def decoded(self) -> list[Ints]:
        """What a decoder makes of each tensor, int64 [A, B, C]."""
        return [decoded_symbols(t, self.sets[t.table_set]) for t in self.tensors]


def laplace(shape: tuple[int, int, int], spread: float, seed: int = 0) -> npt.NDArray[np.int8]:
    """int8 symbols of the given spread, smooth along the last axis."""
    noise = np.random.default_rng(seed).laplace(0, spread, shape)
    noise[:, :, 1:] += noise[:, :, :-1] / 2
    return np.clip(np.rint(noise), -127, 127).astype(np.int8)


def laplace16(shape: tuple[int, int, int], spread: float, seed: int = 0) -> npt.NDArray[np.int16]:
    """int16 symbols of the given spread."""
    noise = np.random.default_rng(seed).laplace(0, spread, shape)
    return np.clip(np.rint(noise), -32768, 32767).astype(np.int16)


def _ramp(size: int, period: int, shift: int = 0) -> npt.NDArray[np.int8]:
    return (np.arange(size) % period + shift).astype(np.int8)


def mixed_tensors() -> list[Tensor]:
    """Four tensors: several blocks and class arrays, a short last lane, one row, one symbol."""
    return [
        Tensor(
            laplace((15, 5, 9), 3, 1),
            rows_per_lane=2,
            class_a=_ramp(15, 3),
            class_b=_ramp(5, 2, -1),
            class_c=_ramp(9, 3),
        ),
        Tensor(laplace((7, 3, 5), 9, 2), rows_per_lane=4, table_set=1, class_base=-2),
        Tensor(laplace((1, 1, 40), 1, 3), class_c=_ramp(40, 5), class_base=300),
        Tensor(np.zeros((1, 1, 1), np.int8), table_set=1),
    ]


def wide_tensors() -> list[Tensor]:
    """Three 16-bit tensors: raw low bits, none, and eight of them; with exceptions."""
    tensors = [
        Tensor(laplace16((40, 1, 9), 900, 4), low_bits=5, class_a=_ramp(40, 2)),
        Tensor(laplace16((35, 2, 4), 2, 5), rows_per_lane=3, table_set=1),
        Tensor(laplace16((3, 1, 50), 3000, 6), low_bits=8),
    ]
    for tensor, position, value in (
        (0, (3, 0, 2), 32767),
        (1, (34, 1, 3), -200),
        (2, (0, 0, 0), 32767),
    ):
        tensors[tensor].symbols[position] = value
    return tensors


def many_blocks(
    make: Callable[[tuple[int, int, int], float, int], Ints], spread: float
) -> list[Ints]:
    """Tensors of 20 and more blocks in all, of unequal lengths, some with a short last lane.

    Decoders that take several blocks at once begin and end them at different times.
    """
    shapes = [(96, 1, 130), (200, 1, 64), (33, 1, 200), (320, 1, 9), (70, 1, 65), (1, 31, 40)]
    return [make(shape, spread, seed) for seed, shape in enumerate(shapes)]


def halved(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors with symbols whose doubles fit their type."""
    for tensor in tensors:
        tensor.symbols //= 2
    return tensors


def samples() -> Iterator[Sample]:
    """Every sample; names are unique."""
    yield Sample("one_symbol", [Tensor(np.zeros((1, 1, 1), np.int8))])
    yield Sample("extremes", [Tensor(np.array([[[-128, 127, 0], [3, -128, 127]]], np.int8))])
    yield Sample("constant", [Tensor(np.full((40, 1, 6), -128, np.int8), rows_per_lane=3)])
    yield Sample("one_table", [Tensor(laplace((64, 1, 20), 4), rows_per_lane=1)])
    for name, contexts in (("plain", (1, 1)), ("contexts", (5, 5)), ("both", (5, 1))):
        sets = [TableSet(contexts[0], 4), TableSet(contexts[1], 2, [3, 1], [3, 9])]
        for nested_row in (0, 6):
            kind = "nested" if nested_row else "raw"
            yield Sample(f"{name}_{kind}", mixed_tensors(), sets, nested_row=nested_row)
    sets = [TableSet(5, 4), TableSet(1, 2)]
    yield Sample("shared_tables", mixed_tensors(), sets, share=4)
    yield Sample("most_tables", mixed_tensors(), [TableSet(5, 50), TableSet(1, 6)])
    yield Sample(
        "nested_without_classes",
        [Tensor(laplace((33, 1, 8), 2))],
        nested_row=5,
        nested_sets=(TableSet(), TableSet(5)),
    )
    for nested_row in (0, 8):
        kind = "nested" if nested_row else "raw"
        yield Sample(f"wide_{kind}", wide_tensors(), [TableSet(5, 2), TableSet()], True, nested_row)
    near, far = [3, 1], [3, 9]
    for name, kinds in (("trellis", (True, True)), ("trellis_and_plain", (True, False))):
        for first, second in ((5, 1), (1, 5)):
            sets = [
                TableSet(first, 4, trellis=kinds[0]),
                TableSet(second, 2, near, far, kinds[1]),
            ]
            for nested_row in (0, 6):
                kind = "nested" if nested_row else "raw"
                own = halved(mixed_tensors())
                yield Sample(f"{name}_{first}_{kind}", own, sets, nested_row=nested_row)
    sets = [TableSet(5, 2, trellis=True), TableSet(trellis=True)]
    yield Sample("trellis_wide", halved(wide_tensors()), sets, True)
    sets = [TableSet(5, 2, trellis=True), TableSet()]
    yield Sample("trellis_and_plain_wide", halved(wide_tensors()), sets, True, 8)
    yield Sample("wide_plain", [Tensor(laplace16((5, 2, 3), 40))], wide=True)
