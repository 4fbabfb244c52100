# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md sections 2.4 and 2.5: class arrays, thresholds and frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import require
from runtime.oracle.wide_header import WideBody, header

SCALE_BITS = 12
TOTAL = 1 << SCALE_BITS
REST = 127  # the code of the symbol that takes what the others leave
LAST_CODE = 80
STEPS_OF_AN_OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)

Bytes = npt.NDArray[np.uint8]

FULL_COUNT = 255
"""The stored count of a table of all 256 symbols (section 2.4)."""


def frequency(code: int) -> int:
    """F(q) of section 2.5, for codes 0 ... 80."""
    if code <= 16:
        return code
    octave, step = divmod(code - 16, 8)
    return ((STEPS_OF_AN_OCTAVE[step] << octave) + 2048) // 4096


@dataclass(frozen=True)
class SlotTable:
    """A table of frequencies, spread over its 4096 slots.

    Attributes:
        symbol: int64 [4096], the symbol of each slot.
        frequency: int64 [4096], the frequency of that symbol.
        start: int64 [4096], cum of that symbol.
    """

    symbol: npt.NDArray[np.int64]
    frequency: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TableSet:
    """One set: how class and context choose a table.

    Attributes:
        contexts: K, 1 or 5.
        classes: M.
        quantisers: 2 in trellis sets, else 1.
        near, far: int64 [M], the thresholds t1 and t2 (zeros where K = 1).
        table_of: int64 [M * K * quantisers], the number of the table.
    """

    contexts: int
    classes: int
    quantisers: int
    near: npt.NDArray[np.int64]
    far: npt.NDArray[np.int64]
    table_of: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """All tables and sets of a body.

    Attributes:
        sets: the sets.
        symbol, frequency, start: int16 [G, 4096] as in SlotTable.
    """

    sets: list[TableSet]
    symbol: npt.NDArray[np.int16]
    frequency: npt.NDArray[np.int16]
    start: npt.NDArray[np.int16]


def read_table(first: int, codes: Bytes) -> SlotTable:
    """Section 2.5: the table of symbols first, first + 1, ... with these codes, uint8 [count].

    Raises:
        FormatError: TK_ERR_TABLE.
    """
    if codes.size == 0:
        first, frequencies = 0, np.array([TOTAL - 1, 1])
    else:
        known = (codes <= LAST_CODE) | (codes == REST)
        require(bool(known.all()), "TK_ERR_TABLE", "a code is neither 0 ... 80 nor 127")
        rest = np.flatnonzero(codes == REST)
        require(rest.size == 1, "TK_ERR_TABLE", f"{rest.size} codes are 127, expected one")
        frequencies = np.array([0 if q == REST else frequency(int(q)) for q in codes])
        left = TOTAL - int(frequencies.sum())
        require(1 <= left < TOTAL, "TK_ERR_TABLE", f"the frequency of code 127 would be {left}")
        frequencies[rest] = left
    starts = np.cumsum(frequencies) - frequencies
    entry = np.repeat(np.arange(frequencies.size), frequencies)
    return SlotTable(entry + first, frequencies[entry], starts[entry])


def read_class_arrays(body: WideBody, stream: Bytes) -> list[list[npt.NDArray[np.int64]]]:
    """Each tensor's class arrays for the axes A, B, C: int64 [A], [B], [C]; zeros where absent."""
    at = 0
    arrays = []
    for tensor in body.tensors:
        own = []
        for size, present in zip((tensor.a, tensor.b, tensor.c), tensor.has_class, strict=True):
            if present:
                own.append(stream[at : at + size].view(np.int8).astype(np.int64))
                at += size
            else:
                own.append(np.zeros(size, np.int64))
        arrays.append(own)
    return arrays


def read_tables(body: WideBody, stream: Bytes) -> Tables:
    """The table stream, uint8 [U].

    Raises:
        FormatError: TK_ERR_HEADER where U is wrong, TK_ERR_TABLE.
    """
    mapped = sum(contexts * classes * quantisers for contexts, classes, quantisers in body.sets)
    thresholds = sum(2 * classes for contexts, classes, _ in body.sets if contexts == 5)
    fixed = thresholds + mapped + 2 * body.num_tables
    header(stream.size >= fixed, f"U is {stream.size}, the set directory asks for {fixed} or more")
    near_and_far, table_of, firsts, counts, codes = np.split(
        stream, np.cumsum([thresholds, mapped, body.num_tables, body.num_tables])
    )
    counts = np.where(counts == FULL_COUNT, 256, counts.astype(np.int64))
    asked = fixed + int(counts.sum())
    header(stream.size == asked, f"U is {stream.size}, the set directory asks for {asked}")
    most = int(table_of.max())
    require(most < body.num_tables, "TK_ERR_TABLE", f"table {most} of {body.num_tables}")
    slots = []
    end = 0
    for first, count in zip(firsts.view(np.int8).tolist(), counts.tolist(), strict=True):
        require(first + count <= 128, "TK_ERR_TABLE", f"{count} symbols from {first} on pass 127")
        slots.append(read_table(first, codes[end : end + count]))
        end += count
    return Tables(
        _read_sets(body, near_and_far.astype(np.int64), table_of.astype(np.int64)),
        np.stack([s.symbol for s in slots]).astype(np.int16),
        np.stack([s.frequency for s in slots]).astype(np.int16),
        np.stack([s.start for s in slots]).astype(np.int16),
    )


def _read_sets(
    body: WideBody, thresholds: npt.NDArray[np.int64], table_of: npt.NDArray[np.int64]
) -> list[TableSet]:
    """The sets, from the thresholds and the map of all of them."""
    sets = []
    for contexts, classes, quantisers in body.sets:
        near = far = np.zeros(classes, np.int64)
        if contexts == 5:
            near, far, thresholds = np.split(thresholds, [classes, 2 * classes])
            ordered = bool(((near >= 1) & (near <= far)).all())
            require(ordered, "TK_ERR_TABLE", "thresholds do not keep 1 <= t1 <= t2")
        own, table_of = np.split(table_of, [classes * contexts * quantisers])
        sets.append(TableSet(contexts, classes, quantisers, near, far, own))
    return sets
