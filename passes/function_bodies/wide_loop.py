# SPDX-License-Identifier: Apache-2.0
"""`toolkit.WideLoop`: decodes a wide body whose side information is at hand (FORMAT.md 2.6).

One ONNX Scan over the steps; each operator works on all lanes of the segment. Lanes lie in an array
[32, D], lane j of block d at [j, d], so that a block's pointer into the code words is one column,
and the order of the lanes that refill is a running sum down the column. Missing lanes of a
tensor's last block, and lanes that have ended, rest in state 65536 (see wide_tables.py).

What a step has to know of its row changes only where a row begins; the Scan recomputes it in
the steps in which some lane begins one. GatherElements on flat arrays is ten times as fast as Gather.

On a corrupted blob every index stays in range and the number of steps is bounded: the symbols are
wrong, or ONNX Runtime reports an error.
"""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import (
    BOOL,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT32,
    BodyBuilder,
)
from passes.function_bodies.wide_tables import CLASSES, SYMBOLS, add_tables

HEADER_WORDS = 18
LOWEST_STATE = 65536
SET_SIZE = CLASSES * SYMBOLS


def loop_name(wide: bool) -> str:
    """Name of the function for 16-bit (wide) or 8-bit symbols."""
    return "WideLoop16" if wide else "WideLoop"


def add_u32(b: BodyBuilder, words: str) -> str:
    """int64 [n] from pairs of words uint16 [2 n]."""
    pairs = b.op("Reshape", b.cast(words, INT64), b.ints(-1, 2))
    return b.op("MatMul", pairs, b.ints(1, LOWEST_STATE))


def wide_loop(opset: int, wide: bool) -> onnx.FunctionProto:
    """WideLoop(blob, start, end, classes, tables) -> symbols, int8 [L, T]; WideLoop16: int16.

    Inputs: blob uint16 [n]; start and end int64 [1], the words of the body; classes int64 [P], the
    class stream, signed; tables int64 [U], the table stream, 0 ... 255.
    """
    b = BodyBuilder(5)
    blob, start, end, classes, tables = b.inputs
    zero, one, two, rows32 = b.ints(0), b.ints(1), b.ints(2), b.ints(32)
    blob_size = b.op("Shape", blob)
    directory_at = b.op("Add", start, b.ints(HEADER_WORDS))
    counts = b.cast(b.slice(blob, start, directory_at), INT64)
    num_tensors, num_sets, _ = b.ops("Split", 3, counts, b.ints(1, 1, HEADER_WORDS - 2))
    fields = add_u32(b, b.slice(blob, b.op("Add", start, b.ints(4)), directory_at))
    lanes, blocks, num_steps, words, _ = b.ops("Split", 5, fields, b.ints(1, 1, 1, 1, 3))
    blocks = b.op("Min", blocks, blob_size)
    sets_at = b.op("Add", directory_at, b.op("Mul", num_tensors, b.ints(10)))
    sets = b.cast(b.slice(blob, sets_at, b.op("Add", sets_at, num_sets)), INT64)
    slots, where = add_tables(b, sets, tables)

    # The directory, int64 [N, 5], and what follows from it.
    directory = add_u32(b, b.slice(blob, directory_at, sets_at))
    directory = b.op("Reshape", directory, b.ints(-1, 5))
    sizes, b_size, c_size, k, rest = b.ops("Split", 5, directory, b.ints(1, 1, 1, 1, 1), axis=1)
    num_rows = b.op("Mul", sizes, b_size)
    longest = b.op("ReduceMax", b.op("Mul", k, c_size), keepdims=1)
    num_steps = b.op(
        "Min", num_steps, b.flat(longest), b.op("Mul", blob_size, b.ints(LOWEST_STATE))
    )

    def ceil_div(value: str, by: str) -> str:
        return b.op("Div", b.op("Add", value, b.op("Sub", by, one)), by)

    first_block = b.before(ceil_div(ceil_div(num_rows, k), rows32))
    has = b.op("Mod", b.op("Div", rest, b.ints(256, 512, 1024)), two)
    class_sizes = b.op("Mul", has, b.slice(directory, zero, b.ints(3), 1))
    absent = b.op("Shape", classes)
    class_at = b.op("Reshape", b.before(b.flat(class_sizes)), b.ints(-1, 3))
    class_at = b.op("Sub", class_at, absent)
    class_at = b.op("Add", b.op("Mul", class_at, has), absent)  # an absent array is the zero there
    tensors = b.op("Concat", num_rows, b_size, c_size, k, rest, first_block, class_at, axis=1)
    tensors = b.op("Gather", tensors, b.groups(blocks, b.flat(first_block)))
    columns = b.ops("Split", 9, b.op("Transpose", tensors), b.ints(*[1] * 9), axis=0)
    num_rows, b_size, c_size, k, rest, first_block, at_a, at_b, at_c = columns  # each [1, D]

    # Rows of each lane, [32, D].
    lane = b.op("Mul", b.op("Sub", b.range(blocks), first_block), rows32)
    lane = b.op("Add", lane, b.op("Unsqueeze", b.range(rows32), one))
    first_row = b.op("Min", b.op("Mul", lane, k), num_rows)
    lane_rows = b.op("Min", b.op("Sub", num_rows, first_row), k)

    # Where the lanes of the blob lie in a flat [32, D].
    grid = b.op("Concat", rows32, blocks, axis=0)
    padded = b.op("Mul", rows32, blocks)
    number = b.op("Transpose", b.op("Reshape", b.range(padded), grid))
    real = b.op("Transpose", b.op("Greater", lane_rows, zero))
    order = b.op("Compress", b.flat(number), b.flat(real))

    words_at = b.op("Sub", end, words)
    states_at = b.op("Sub", words_at, b.op("Mul", lanes, two))
    lengths_at = b.op("Sub", states_at, b.op("Mul", blocks, two))
    states = b.cast(add_u32(b, b.slice(blob, states_at, words_at)), UINT32)
    resting = b.op("Expand", b.constant(UINT32, [LOWEST_STATE]), padded)
    states = b.op("ScatterND", resting, b.op("Unsqueeze", order, one), states)
    begin = b.before(add_u32(b, b.slice(blob, lengths_at, states_at)))
    # Each pointer stands on the word read last.
    last_word = b.op("Sub", blob_size, one)
    pointer = b.op("Add", begin, b.op("Sub", words_at, one))
    pointer = b.cast(b.op("Unsqueeze", b.op("Min", pointer, last_word), zero), INT32)
    last_word = b.cast(last_word, INT32)
    tail = b.op("Expand", b.constant(UINT32, [0]), rows32)
    code = b.op("Concat", b.cast(blob, UINT32), tail, axis=0)

    # What the steps use, as int32; classes come times 256, the size of a row of `where`.
    def int32(value: str) -> str:
        return b.cast(value, INT32)

    byte = b.ints(SYMBOLS)
    class_of = int32(b.op("Mul", b.op("Concat", classes, zero, axis=0), byte))
    class_limit = int32(absent)
    base = b.op("Div", rest, b.ints(LOWEST_STATE))
    base = b.op("Sub", base, b.op("Mul", b.op("Div", base, b.ints(32768)), b.ints(LOWEST_STATE)))
    base = int32(b.op("Mul", base, byte))
    table_set = b.op("Min", b.op("Mod", rest, byte), b.op("Sub", num_sets, one))
    set_at = int32(b.op("Mul", b.op("Add", table_set, one), b.ints(SET_SIZE)))
    low_bits = b.op("Mod", b.op("Div", rest, b.ints(4096)), b.ints(16)) if wide else ""
    low_bits = b.cast(b.op("Min", low_bits, b.ints(8)), UINT32) if wide else ""
    first_row, lane_rows, b_size, c_size = map(int32, (first_row, lane_rows, b_size, c_size))
    at_a, at_b, at_c = map(int32, (at_a, at_b, at_c))
    zeros = b.op("Expand", b.constant(INT32, [0]), grid)
    column = b.op("Sub", c_size, b.int32(1))
    steps = int32(b.range(num_steps))

    def refill(x: str, pointer: str) -> tuple[str, str]:
        """Step 5 of 2.6: states and pointers after it."""
        low = b.cast(b.op("Less", x, b.uint32(LOWEST_STATE)), UINT8)
        taken = b.op("CumSum", b.op("Reshape", b.cast(low, INT32), grid), b.axis)
        place = b.op("Add", taken, pointer)
        pointer = b.op("Min", b.slice(place, b.ints(31), rows32), last_word)
        word = b.op("GatherElements", code, b.flat(place))
        low = b.cast(low, UINT32)
        change = b.op("Add", b.op("Mul", x, b.uint32(LOWEST_STATE - 1)), word)
        return b.op("Add", x, b.op("Mul", change, low)), pointer

    def class_sum(*places: str) -> str:
        """Classes of one axis or two at the given places, flat."""
        parts = [
            b.op("GatherElements", class_of, b.op("Min", b.flat(place), class_limit))
            for place in places
        ]
        return parts[0] if len(parts) == 1 else b.op("Add", *parts)

    # One step.
    b.open_graph()
    carry = [b.name() for _ in range(8 if wide else 7)]
    x, point, v, c, kept, row_class, row_set, *low = carry
    step = b.name()
    next_c = b.op("Add", c, b.int32(1))
    keep = b.cast(b.op("Less", next_c, c_size), INT32)  # 0 where a row begins
    next_c = b.op("Mul", next_c, keep)
    next_kept = b.op("Add", kept, keep)
    same = b.cast(b.op("ReduceMin", keep, keepdims=0), BOOL)
    b.open_graph()
    kept_values = [b.op("Identity", value) for value in carry[5:]]
    then_graph = b.close_graph([], kept_values)
    b.open_graph()
    rows_done = b.op("Sub", step, next_kept)
    row = b.op("Add", first_row, rows_done)
    index_a = b.op("Div", row, b_size)
    index_b = b.op("Add", b.op("Sub", row, b.op("Mul", index_a, b_size)), at_b)
    sums = class_sum(b.op("Add", index_a, at_a), index_b)
    new_class = b.op("Add", b.op("Reshape", sums, grid), base)
    alive = b.cast(b.op("Less", rows_done, lane_rows), INT32)
    new_set = b.op("Add", b.op("Mul", alive, set_at), b.int32(128))
    fresh = [new_class, new_set]
    if wide:
        fresh.append(b.flat(b.op("Mul", b.cast(alive, UINT32), low_bits)))
    else_graph = b.close_graph([], fresh)
    row_class, row_set, *low = b.ops(
        "If", len(fresh), same, then_branch=then_graph, else_branch=else_graph
    )
    in_row = b.op("Reshape", class_sum(b.op("Add", next_c, at_c)), b.ints(1, -1))
    y = b.op("Clip", b.op("Add", row_class, in_row), b.int32(0), b.int32((CLASSES - 1) * SYMBOLS))
    previous = b.op("Mul", b.op("Reshape", v, grid), keep)
    place = b.op("Add", b.op("Add", y, row_set), previous)
    offset = b.op("GatherElements", where, b.flat(place))
    # high = x // 4096 - 4096; the slot is x - 4096 * (x // 4096), x' = freq * high + entry // 256.
    high = b.op("Sub", b.op("BitShift", x, b.uint32(12), direction="RIGHT"), b.uint32(4096))
    slot = b.op("Sub", x, b.op("Mul", high, b.uint32(4096)))
    entry = b.op("GatherElements", slots, b.cast(b.op("Add", slot, offset), INT32))
    frequency = b.op("BitShift", entry, b.uint32(20), direction="RIGHT")
    rest = b.op("BitShift", entry, b.uint32(8), direction="RIGHT")
    next_x = b.op("Add", b.op("Mul", frequency, high), rest)
    next_x, next_point = refill(next_x, point)
    symbol = b.cast(entry, INT8)
    next_v = b.cast(symbol, INT32)
    if wide:
        top = b.op("BitShift", next_x, low[0], direction="RIGHT")
        bits = b.op("Sub", next_x, b.op("BitShift", top, low[0], direction="LEFT"))
        shifted = b.op("BitShift", b.cast(next_v, UINT32), low[0], direction="LEFT")
        symbol = b.cast(b.op("Add", shifted, bits), INT16)
        next_x, next_point = refill(top, next_point)
    kinds = [UINT32, INT32, INT32, INT32, INT32, INT32, INT32, *[UINT32] * wide]
    body = b.close_graph(
        [*zip(carry, kinds, strict=True), (step, INT32)],
        [next_x, next_point, next_v, next_c, next_kept, row_class, row_set, *low, symbol],
        [*zip(kinds, (1, 2, 1, 2, 2, 2, 2, 1), strict=False), (INT16 if wide else INT8, 1)],
    )
    flat_zeros = b.op("Expand", b.constant(INT32, [0]), padded)
    initial = [states, pointer, flat_zeros, column, b.op("Sub", column, column), zeros, zeros]
    initial += [resting] * wide
    *_, symbols = b.ops(
        "Scan",
        len(initial) + 1,
        *initial,
        steps,
        body=body,
        num_scan_inputs=1,
        scan_output_axes=[1],
    )
    return b.function(loop_name(wide), [b.op("Gather", symbols, order)], opset)
