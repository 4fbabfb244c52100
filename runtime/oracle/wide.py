# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md sections 2.6, 2.7 and 2.9: decoding a wide segment, step by step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import require
from runtime.oracle.frame import WIDE, Words, open_blob
from runtime.oracle.wide_header import LANES_PER_BLOCK, WideBody, WideTensor, header, read_body
from runtime.oracle.wide_tables import Bytes, Tables, read_class_arrays, read_tables

Int64s = npt.NDArray[np.int64]
Symbols = npt.NDArray[np.int8] | npt.NDArray[np.int16]

LOWEST_STATE = 1 << 16

TRANSITIONS = np.array([(0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6)])
"""Section 2.9: the next state after a symbol by state and the symbol's lowest bit."""


class _Lanes:
    """The lanes of one block: states and the pointer into the block's code words.

    Args:
        states: int64 [lanes], initial states.
        words: uint16 [n], code words of the block.
    """

    def __init__(self, states: Int64s, words: Words) -> None:
        self.states = states.copy()
        self.words = words.astype(np.int64)
        self.pointer = 0

    def refill(self, active: int) -> None:
        """Step 5 of 2.6: the first `active` lanes take a word each where their state is low."""
        low = np.flatnonzero(self.states[:active] < LOWEST_STATE)
        end = self.pointer + low.size
        require(
            end <= self.words.size,
            "TK_ERR_STREAM",
            f"a block asks for more than its {self.words.size} code words",
        )
        self.states[low] = self.states[low] * 65536 + self.words[self.pointer : end]
        self.pointer = end

    def finish(self) -> None:
        """What holds after the last step."""
        require(
            self.pointer == self.words.size,
            "TK_ERR_STREAM",
            f"a block uses {self.pointer} of its {self.words.size} code words",
        )
        require(
            bool((self.states == LOWEST_STATE).all()),
            "TK_ERR_STREAM",
            "a lane does not end in state 65536",
        )


def decode_segment(words: Words) -> list[Symbols]:
    """Decode a wide blob.

    Args:
        words: uint16 [n], the whole blob.

    Returns:
        The symbols of each tensor, [A, B, C], int8, or int16 where the segment has wide symbols.

    Raises:
        FormatError: the blob breaks a rule of FORMAT.md; `code` says which kind.
    """
    body = _open(words)
    matrix = _decode_body(body)
    first = 0
    arrays = []
    for tensor in body.tensors:
        lanes = matrix[first : first + tensor.num_lanes, : tensor.num_steps]
        symbols = lanes.reshape(-1)[: tensor.num_rows * tensor.c]
        arrays.append(symbols.reshape(tensor.a, tensor.b, tensor.c))
        first += tensor.num_lanes
    return arrays


def decode_matrix(words: Words) -> Symbols:
    """Decode a wide blob, uint16 [n], into the matrix of all lanes.

    Returns:
        int8 (int16 for wide symbols) [L, T]; positions past a lane's end are zero.

    Raises:
        FormatError: as decode_segment.
    """
    return _decode_body(_open(words))


def _open(words: Words) -> WideBody:
    return read_body(open_blob(words, WIDE))


def _side_information(body: WideBody) -> tuple[Bytes, Bytes]:
    """Section 2.4: class stream uint8 [P] and table stream uint8 [U]."""
    if body.inner is None:
        if body.class_stream is None or body.table_stream is None:
            raise TypeError("a body that is not nested has both streams")
        return body.class_stream, body.table_stream
    matrix = _decode_body(body.inner)
    streams: list[Bytes] = []
    first = 0
    for tensor, size in zip(
        body.inner.tensors, (body.class_stream_bytes, body.table_stream_bytes), strict=True
    ):
        lanes = matrix[first : first + tensor.num_lanes, : tensor.num_steps]
        symbols = np.ascontiguousarray(lanes).reshape(-1)[: tensor.num_rows * tensor.c]
        header(symbols.size >= size, f"nested stream of {symbols.size} bytes, expected {size}")
        padding = symbols.size - size
        header(padding <= tensor.c, f"{padding} symbols pad a nested stream of rows of {tensor.c}")
        header(not symbols[size:].any(), "the padding of a nested stream is not zero")
        streams.append(symbols[:size].view(np.uint8))
        first += tensor.num_lanes
    return streams[0], streams[1]


def _decode_body(body: WideBody) -> Symbols:
    """Symbols of a body, [L, T]."""
    class_stream, table_stream = _side_information(body)
    class_arrays = read_class_arrays(body, class_stream)
    tables = read_tables(body, table_stream)
    positions = _check_exceptions(body)
    out = np.zeros((body.num_lanes, body.num_steps), np.int16 if body.wide else np.int8)
    word_ends = np.cumsum(body.block_words)
    block = first_lane = 0
    for tensor, arrays in zip(body.tensors, class_arrays, strict=True):
        for start in range(0, tensor.num_lanes, LANES_PER_BLOCK):
            end = min(start + LANES_PER_BLOCK, tensor.num_lanes)
            lanes = _Lanes(
                body.states[first_lane + start : first_lane + end],
                body.code_words[word_ends[block] - body.block_words[block] : word_ends[block]],
            )
            target = out[first_lane + start : first_lane + end]
            _decode_block(tensor, arrays, tables, lanes, start, target)
            block += 1
        first_lane += tensor.num_lanes
    if positions.size:
        out.reshape(-1)[positions] = body.exceptions[:, 2].view(np.int16)
    return out


def _decode_block(
    tensor: WideTensor,
    arrays: list[Int64s],
    tables: Tables,
    lanes: _Lanes,
    start: int,
    out: Symbols,
) -> None:
    """Section 2.6 for the block whose first lane is `start` of the tensor; fills out [lanes, T]."""
    num_lanes = out.shape[0]
    steps = tensor.lane_steps()[start : start + num_lanes]
    first_row = (start + np.arange(num_lanes)) * tensor.rows_per_lane
    class_a, class_b, class_c = arrays
    chosen = tables.sets[tensor.table_set]
    previous = np.zeros(num_lanes, np.int64)
    trellis = np.zeros(num_lanes, np.int64)
    for s in range(tensor.num_steps):
        active = int((steps > s).sum())  # only the last lane of a tensor is shorter
        if active == 0:
            break
        row = first_row[:active] + s // tensor.c
        a, b, c = row // tensor.b, row % tensor.b, s % tensor.c
        row_class = np.clip(tensor.class_base + class_a[a] + class_b[b], -128, 127)
        y = np.clip(row_class + class_c[c], 0, chosen.classes - 1)
        z: Int64s = np.zeros(active, np.int64)
        if chosen.contexts == 5:
            v = previous[:active] if c else z
            distance = (abs(v) >= chosen.near[y]).astype(np.int64) + (abs(v) >= chosen.far[y])
            z = 2 + np.sign(v) * distance
        if c == 0:
            trellis[:] = 0
        quantiser = trellis[:active] % chosen.quantisers
        table = chosen.table_of[(y * chosen.contexts + z) * chosen.quantisers + quantiser]
        x = lanes.states[:active]
        slot = x % 4096
        symbol = tables.symbol[table, slot].astype(np.int64)
        lanes.states[:active] = (
            tables.frequency[table, slot] * (x // 4096) + slot - tables.start[table, slot]
        )
        previous[:active] = symbol
        lanes.refill(active)
        if tensor.low_bits:
            low = lanes.states[:active] % (1 << tensor.low_bits)
            lanes.states[:active] >>= tensor.low_bits
            lanes.refill(active)
            symbol = symbol * (1 << tensor.low_bits) + low
        if chosen.quantisers == 2:
            trellis[:active] = TRANSITIONS[trellis[:active], symbol % 2]
            symbol = 2 * symbol - np.sign(symbol) * quantiser
        out[:active, s] = symbol
    lanes.finish()


def _check_exceptions(body: WideBody) -> Int64s:
    """Section 2.7: positions int64 [X] of the exceptions in the flat matrix.

    Raises:
        FormatError: TK_ERR_EXCEPTION.
    """
    fields = body.exceptions.astype(np.int64)
    positions = fields[:, 0] + (fields[:, 1] << 16)

    def check(condition: bool, message: str) -> None:
        require(condition, "TK_ERR_EXCEPTION", message)

    check(not fields[:, 3].any(), "the last word of an exception is not zero")
    check(bool((np.diff(positions) > 0).all()), "exceptions do not ascend")
    lane, step = positions // body.num_steps, positions % body.num_steps
    check(bool((lane < body.num_lanes).all()), "an exception lies past the last lane")
    lane_steps = np.concatenate([tensor.lane_steps() for tensor in body.tensors])
    check(bool((step < lane_steps[lane]).all()), "an exception lies past the end of its lane")
    return positions
