# SPDX-License-Identifier: Apache-2.0
"""A slow encoder of wide blobs, straight from FORMAT.md, independent of the C++ one.

The caller decides every choice that the format leaves open: rows in a lane, table sets, contexts,
class arrays, raw low bits, nested side information. Tables are fitted to the symbols.
`encode_segment` returns a whole blob.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int64]

LANES_PER_BLOCK = 32
REST = 127
OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)
TRELLIS = np.array([(0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6)])
FREQUENCIES = np.array(
    [
        q if q <= 16 else (OCTAVE[(q - 16) % 8] * 2 ** ((q - 16) // 8) + 2048) // 4096
        for q in range(81)
    ]
)


@dataclass
class Tensor:
    """A tensor to encode and how.

    Attributes:
        symbols: int8 or int16 [A, B, C]; in a trellis set those that are coded, not their integers.
        rows_per_lane: k.
        table_set: index of its set.
        class_a, class_b, class_c: int8 [A], [B], [C] or None where absent.
        class_base: i16.
        low_bits: n, raw low bits of wide symbols.
    """

    symbols: npt.NDArray[np.int8] | npt.NDArray[np.int16]
    rows_per_lane: int = 1
    table_set: int = 0
    class_a: npt.NDArray[np.int8] | None = None
    class_b: npt.NDArray[np.int8] | None = None
    class_c: npt.NDArray[np.int8] | None = None
    class_base: int = 0
    low_bits: int = 0

    @property
    def class_arrays(self) -> list[npt.NDArray[np.int8] | None]:
        return [self.class_a, self.class_b, self.class_c]


@dataclass
class TableSet:
    """Contexts K, classes M and, where K = 5, the thresholds, uint8 [M] each (2 and 5 by default).

    trellis: its tensors' symbols stand for integers.
    """

    contexts: int = 1
    classes: int = 1
    near: Sequence[int] | None = None
    far: Sequence[int] | None = None
    trellis: bool = False

    @property
    def quantisers(self) -> int:
        return 2 if self.trellis else 1

    @property
    def places(self) -> int:
        return self.contexts * self.classes * self.quantisers

    def thresholds(self) -> tuple[Ints, Ints]:
        near = [2] * self.classes if self.near is None else self.near
        far = [5] * self.classes if self.far is None else self.far
        return np.array(near, np.int64), np.array(far, np.int64)


@dataclass
class _Table:
    first: int = 0
    codes: list[int] = field(default_factory=list)

    def frequencies(self) -> tuple[int, Ints]:
        if not self.codes:
            return 0, np.array([4095, 1])
        values = np.array([0 if q == REST else FREQUENCIES[q] for q in self.codes])
        values[self.codes.index(REST)] = 4096 - values.sum()
        return self.first, values


def u32(value: int) -> list[int]:
    return [value & 0xFFFF, value >> 16]


def byte_string(data: bytes) -> list[int]:
    padded = data + b"\0" * (len(data) % 2)
    return list(struct.unpack(f"<{len(padded) // 2}H", padded))


def frame(body: Sequence[int], coder: int = 1) -> Words:
    """FORMAT.md 1 around the body's words."""
    words = np.array([0x574E, 1 | coder << 8, 0, 0, *u32(len(body) + 6), *body], np.uint16)
    return with_checksum(words)


def with_checksum(words: Words) -> Words:
    """The same blob with the CRC-32 that belongs to it."""
    fixed = words.copy()
    fixed[2:4] = u32(zlib.crc32(words[4:].astype("<u2").tobytes()))
    return fixed


def fit_table(histogram: Ints) -> _Table:
    """Codes for a histogram, int64 [256], of the symbols -128 ... 127."""
    present = np.flatnonzero(histogram)
    if present.size == 0 or (present.size == 1 and present[0] == 128):
        return _Table()
    low, high = int(present[0]), int(present[-1])
    if low == high:
        low, high = (low - 1, high) if high == 255 else (low, high + 1)
    if high - low + 1 >= 255:
        low, high = 0, 255  # 255 symbols cannot be stored, 256 can
    counts = histogram[low : high + 1]
    top = int(np.argmax(counts))
    share = counts * 4096 / counts.sum()
    codes = np.abs(FREQUENCIES[None, 1:80] - share[:, None]).argmin(1) + 1
    codes[counts == 0] = 0
    if np.count_nonzero(counts) == 1:
        codes[0 if top else 1] = 1
    codes[top] = 0
    while FREQUENCIES[codes].sum() > 4095:
        codes[np.argmax(codes)] -= 1
    codes[top] = REST
    return _Table(low - 128, [int(q) for q in codes])


def quantisers(tensor: Tensor) -> Ints:
    """FORMAT.md 2.9: the quantiser of each symbol as if its set were a trellis set."""
    found = np.zeros(tensor.symbols.shape, np.int64)
    state = np.zeros(tensor.symbols.shape[:2], np.int64)
    for c in range(tensor.symbols.shape[2]):
        found[:, :, c] = state & 1
        state = TRELLIS[state, tensor.symbols[:, :, c].astype(np.int64) & 1]
    return found


def decoded_symbols(tensor: Tensor, table_set: TableSet) -> Ints:
    """What a decoder makes of the tensor, int64 [A, B, C]."""
    symbols = tensor.symbols.astype(np.int64)
    if not table_set.trellis:
        return symbols
    return 2 * symbols - np.sign(symbols) * quantisers(tensor)


def _coded(tensor: Tensor) -> tuple[Ints, Ints]:
    """Coded symbol and low bits of each symbol; values that no i8 can stand for are clipped, and
    stay even or odd."""
    values = tensor.symbols.astype(np.int64)
    coded = np.clip(values >> tensor.low_bits, -127 if tensor.low_bits else -128, 127)
    if tensor.symbols.dtype == np.int16:
        coded = np.clip(coded, -127, 127)
    if not tensor.low_bits:
        coded -= np.sign(coded) * ((coded ^ values) & 1)
    return coded, values & ((1 << tensor.low_bits) - 1)


def _table_indices(tensor: Tensor, coded: Ints, table_set: TableSet) -> Ints:
    """Table of each symbol in the tensor's set, int64 [A, B, C]."""
    y: Ints = np.full(coded.shape, tensor.class_base, np.int64)
    for axis, array in enumerate(tensor.class_arrays):
        if axis == 2:
            y = np.clip(y, -128, 127)
        if array is not None:
            shape = [1, 1, 1]
            shape[axis] = -1
            y = y + array.astype(np.int64).reshape(shape)
    y = np.clip(y, 0, table_set.classes - 1)
    q: Ints = quantisers(tensor) if table_set.trellis else np.zeros_like(coded)
    if table_set.contexts == 1:
        return y * table_set.quantisers + q
    near, far = table_set.thresholds()
    previous = np.zeros_like(coded)
    previous[:, :, 1:] = coded[:, :, :-1]
    size = abs(previous)
    distance = (size >= near[y]).astype(np.int64) + (size >= far[y])
    return (y * 5 + 2 + np.sign(previous) * distance) * table_set.quantisers + q


def _as_lanes(values: Ints, rows_per_lane: int) -> Ints:
    """[A, B, C] as lanes [ceil(R / k), k * C], padded with zeros."""
    rows = values.reshape(-1, values.shape[2])
    lanes = -(-rows.shape[0] // rows_per_lane)
    padded = np.zeros((lanes * rows_per_lane, rows.shape[1]), np.int64)
    padded[: rows.shape[0]] = rows
    return padded.reshape(lanes, -1)


def _encode_lanes(
    frequency: Ints, start: Ints, low: Ints, low_bits: int, lengths: Ints
) -> tuple[Ints, list[Words]]:
    """rANS over lanes [lanes, steps], backwards in time.

    Returns:
        Initial states of the decoder, int64 [lanes], and the code words of each block.
    """
    lanes, steps = frequency.shape
    x = np.full(lanes, 65536, np.int64)
    refills = 2 if low_bits else 1
    words = np.zeros((steps, refills, lanes), np.uint16)
    taken = np.zeros((steps, refills, lanes), bool)

    def emit(step: int, refill: int, full: npt.NDArray[np.bool_]) -> None:
        words[step, refill, full] = x[full] & 0xFFFF
        taken[step, refill] = full
        x[full] >>= 16

    for step in range(steps - 1, -1, -1):
        active = lengths > step
        if low_bits:
            emit(step, 1, active & (x >= 1 << (32 - low_bits)))
            x = np.where(active, x << low_bits | low[:, step], x)
        f = frequency[:, step]
        emit(step, 0, active & (x >= f << 20))
        x = np.where(active, ((x // f) << 12) + x % f + start[:, step], x)
    blocks = [
        words[:, :, at : at + LANES_PER_BLOCK][taken[:, :, at : at + LANES_PER_BLOCK]]
        for at in range(0, lanes, LANES_PER_BLOCK)
    ]
    return x, blocks


def _flags(tensor: Tensor) -> int:
    present = sum(0x100 << i for i, array in enumerate(tensor.class_arrays) if array is not None)
    return tensor.table_set | present | tensor.low_bits << 12


@dataclass(frozen=True)
class NestedPadding:
    """What follows the streams of nested side information; sound ones have zeros to a full row."""

    byte: bytes = b"\0"
    extra_rows: int = 0


def _byte_tensor(data: bytes, row: int, padding: NestedPadding) -> Tensor:
    """A stream of side information as a tensor of rows of `row` bytes."""
    data = data or b"\0"
    padded = data + padding.byte * (-len(data) % row + row * padding.extra_rows)
    symbols = np.frombuffer(padded, np.int8).reshape(-1, 1, row)
    return Tensor(symbols, rows_per_lane=symbols.shape[0])


def encode_body(
    tensors: Sequence[Tensor],
    sets: Sequence[TableSet],
    *,
    wide: bool = False,
    nested_row: int = 0,
    nested_sets: Sequence[TableSet] = (TableSet(),),
    nested_padding: NestedPadding = NestedPadding(),
    share: int = 1,
) -> list[int]:
    """The words of a body as in 2.2.

    Args:
        wide: 16-bit symbols.
        share: places of the map, counted through all sets, that have one table in common.
        nested_row: C of the two tensors that hold the side information; 0 stores it raw.
        nested_sets: one or two table sets for them.
    """
    coded = [_coded(t) for t in tensors]
    indices = [
        _table_indices(t, v, sets[t.table_set]) for t, (v, _) in zip(tensors, coded, strict=True)
    ]
    places = np.cumsum([0, *(s.places for s in sets)])
    table_of = np.arange(places[-1]) // share
    indices = [
        table_of[places[t.table_set] + index] for t, index in zip(tensors, indices, strict=True)
    ]
    histogram = np.zeros((int(table_of[-1]) + 1, 256), np.int64)
    for (v, _), index in zip(coded, indices, strict=True):
        np.add.at(histogram, (index.ravel(), v.ravel() + 128), 1)
    tables = [fit_table(row) for row in histogram]
    frequency_of = np.zeros((len(tables), 256), np.int64)
    start_of = np.zeros((len(tables), 256), np.int64)
    for number, table in enumerate(tables):
        first, values = table.frequencies()
        frequency_of[number, first + 128 : first + 128 + values.size] = values
        start_of[number, first + 128 : first + 128 + values.size] = np.cumsum(values) - values

    lanes_of = [_as_lanes(np.ones(t.symbols.shape, np.int64), t.rows_per_lane) for t in tensors]
    num_steps = max(lanes.shape[1] for lanes in lanes_of)
    directory: list[int] = []
    states: list[int] = []
    blocks: list[Words] = []
    exceptions: list[int] = []
    num_exceptions = 0
    first_lane = 0
    for tensor, (v, low), index, lanes in zip(tensors, coded, indices, lanes_of, strict=True):
        a, b, c = tensor.symbols.shape
        directory += [*u32(a), *u32(b), *u32(c), *u32(tensor.rows_per_lane)]
        directory += [_flags(tensor), tensor.class_base & 0xFFFF]
        frequency = _as_lanes(frequency_of[index, v + 128], tensor.rows_per_lane)
        start = _as_lanes(start_of[index, v + 128], tensor.rows_per_lane)
        x, own_blocks = _encode_lanes(
            np.maximum(frequency, 1),
            start,
            _as_lanes(low, tensor.rows_per_lane),
            tensor.low_bits,
            lanes.sum(1),
        )
        states += x.tolist()
        blocks += own_blocks
        wrong = ((v << tensor.low_bits) + low != tensor.symbols).astype(np.int64)
        wrong = _as_lanes(wrong, tensor.rows_per_lane)
        values16 = decoded_symbols(tensor, sets[tensor.table_set])
        values16 = _as_lanes(values16, tensor.rows_per_lane)
        for lane, step in zip(*np.nonzero(wrong), strict=True):
            position = (first_lane + int(lane)) * num_steps + int(step)
            exceptions += [*u32(position), int(values16[lane, step]) & 0xFFFF, 0]
            num_exceptions += 1
        first_lane += lanes.shape[0]
    if num_exceptions and not wide:
        raise ValueError("8-bit symbols have no exceptions")

    class_stream = b"".join(
        array.astype(np.int8).tobytes()
        for t in tensors
        for array in t.class_arrays
        if array is not None
    )
    table_stream = _table_stream(sets, bytes(table_of.tolist()), tables)
    code_words = np.concatenate(blocks)
    flags = int(wide) | 2 * (nested_row > 0) | 4 * any(s.trellis for s in sets)
    words = [len(tensors), len(sets), flags, len(tables)]
    for value in (first_lane, len(blocks), num_steps, code_words.size, num_exceptions):
        words += u32(value)
    words += [*u32(len(class_stream)), *u32(len(table_stream)), *directory]
    words += [s.contexts | 0x80 * s.trellis | s.classes << 8 for s in sets]
    if nested_row:
        streams = (class_stream, table_stream)
        pair = [_byte_tensor(stream, nested_row, nested_padding) for stream in streams]
        pair[1].table_set = len(nested_sets) - 1
        inner = encode_body(pair, nested_sets)
        words += [*u32(len(inner)), *inner]
    else:
        words += byte_string(class_stream) + byte_string(table_stream)
    words += exceptions
    for size in (block.size for block in blocks):
        words += u32(size)
    for state in states:
        words += u32(state)
    return words + code_words.tolist()


def _table_stream(sets: Sequence[TableSet], table_of: bytes, tables: list[_Table]) -> bytes:
    thresholds = b"".join(
        bytes(array.tolist()) for s in sets if s.contexts == 5 for array in s.thresholds()
    )
    firsts = bytes(table.first & 0xFF for table in tables)
    counts = bytes(min(len(table.codes), 255) for table in tables)
    codes = b"".join(bytes(table.codes) for table in tables)
    return thresholds + table_of + firsts + counts + codes


def encode_segment(
    tensors: Sequence[Tensor],
    sets: Sequence[TableSet] = (TableSet(),),
    *,
    wide: bool = False,
    nested_row: int = 0,
    nested_sets: Sequence[TableSet] = (TableSet(),),
    nested_padding: NestedPadding = NestedPadding(),
    share: int = 1,
) -> Words:
    """A whole wide blob, uint16 [n]; arguments as `encode_body`."""
    body = encode_body(
        tensors,
        sets,
        wide=wide,
        nested_row=nested_row,
        nested_sets=nested_sets,
        nested_padding=nested_padding,
        share=share,
    )
    return frame(body)
