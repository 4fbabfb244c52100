# SPDX-License-Identifier: Apache-2.0
"""Decodes a wide body whose side information is at hand (FORMAT.md 2.6), by standard operators.

One ONNX Scan over the steps; each operator works on all lanes of the segment. Lanes lie in an array
[32, D], lane j of block d at [j, d], so that a block's pointer into the code words is one column,
and the order of the lanes that refill is a running sum down the column. Missing lanes of a
tensor's last block, and lanes that have ended, rest in state 65536 (see wide_tables.py).

What a step has to know of its row changes only where a row begins; the Scan recomputes it in
the steps in which some lane begins one. GatherElements on flat arrays is ten times as fast as
Gather.

On a corrupted blob every index stays in range and the number of steps is bounded: the symbols are
wrong, or ONNX Runtime reports an error.
"""

from __future__ import annotations

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
from passes.function_bodies.wide_head import add_directory, add_head, add_lane_counts
from passes.function_bodies.wide_tables import CLASSES, SYMBOLS, add_tables

LOWEST_STATE = 65536
SET_SIZE = CLASSES * SYMBOLS

# FORMAT.md 2.9, states numbered anew: those of quantiser 1 are the last four. Twice the next number
# at twice the number plus the symbol's lowest bit.
_NUMBERS = (0, 2, 4, 6, 1, 3, 5, 7)
_NEXT = ((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6))
TRANSITIONS = tuple(2 * _NUMBERS.index(_NEXT[t][bit]) for t in _NUMBERS for bit in range(2))
FIRST_OF_SECOND = 8


def add_wide_loop(
    b: BodyBuilder,
    blob: str,
    ends: tuple[str, str],
    streams: tuple[str, str],
    wide: bool,
    trellis: bool,
) -> tuple[str, str, str]:
    """Append the nodes that decode one body.

    Args:
        blob: uint16 [n].
        ends: int64 [1] each, first word of the body and the word after it.
        streams: int8 [P] and [U], class stream and table stream.
        wide: decode to int16, else to int8.
        trellis: there may be trellis sets.

    Returns:
        The symbols [L, T]; lanes and most steps of each tensor, int64 [N].
    """
    start, end = ends
    classes, tables = streams
    one, two, in_block = b.ints(1), b.ints(2), b.ints(32)
    byte, word = b.ints(SYMBOLS), b.ints(LOWEST_STATE)
    num_words = b.op("Shape", blob)
    head = add_head(b, blob, start)
    num_blocks = b.op("Min", head["D"], num_words)

    sets = b.cast(b.slice(blob, head["sets"], head["side"]), INT64)
    num_sets = b.op("Shape", sets)
    # Not by way of uint8: ONNX Runtime drops the middle one of casts int8, uint8, int64.
    stream = b.op("Mod", b.cast(tables, INT64), byte)
    slots, where = add_tables(b, sets, stream, head["G"], trellis)

    # What follows from the directory for each tensor, then for each block, [1, D].
    directory = add_directory(b, blob, start, head)
    columns = b.split(directory, 5, axis=1)
    a_size, b_size, c_size, k, rest = columns
    rows, lanes, tensor_steps = add_lane_counts(b, columns)
    tensor_lanes, tensor_steps = b.flat(lanes), b.flat(tensor_steps)
    longest = b.op("ReduceMax", tensor_steps)
    # A word holds at most 16 / log2(4096 / 4095) < 65536 symbols, a state no more.
    limit = b.op("Mul", b.op("Add", b.op("Min", head["W"], num_words), one), word)
    num_steps = b.op("Min", b.op("Min", head["T"], longest), limit)
    blocks = b.op("Div", b.op("Add", lanes, b.ints(31)), in_block)
    first_block = b.before(blocks)
    has = b.op("Mod", b.op("Div", rest, b.ints(256, 512, 1024)), two)
    sizes = b.op("Mul", has, b.op("Concat", a_size, b_size, c_size, axis=1))
    arrays_at = b.op("Reshape", b.before(b.flat(sizes)), b.ints(-1, 3))
    absent = b.op("Shape", classes)  # there lies a zero
    arrays_at = b.op("Where", b.cast(has, BOOL), arrays_at, absent)
    tensors = b.op("Concat", rows, b_size, c_size, k, rest, first_block, arrays_at, axis=1)
    tensor = b.groups(num_blocks, first_block, b.flat(blocks))
    columns = b.split(b.op("Transpose", b.op("Gather", tensors, tensor)), 9)
    rows, b_size, c_size, k, rest, first_block, *classes_at = columns
    base = b.op("Div", rest, word)
    base = b.op("Sub", base, b.op("Mul", b.op("Div", base, b.ints(32768)), word))
    table_set = b.op("Min", b.op("Mod", rest, byte), b.op("Sub", num_sets, one))
    set_size = b.ints(SET_SIZE * (2 if trellis else 1))
    set_at = b.op("Mul", b.op("Add", table_set, one), set_size)
    factor = ""
    if trellis:  # 2 where symbols stand for integers, else 1
        factor = b.op("Mod", b.op("Div", b.op("Gather", sets, table_set), b.ints(128)), two)
        factor = b.cast(b.op("Add", factor, one), INT32)

    # Rows of each lane, [32, D], and where the lanes of the blob lie in it.
    padded = b.op("Mul", num_blocks, in_block)
    grid = b.op("Concat", in_block, num_blocks, axis=0)
    numbers = b.range(padded)
    lane = b.op("Transpose", b.op("Reshape", numbers, b.ints(-1, 32)))
    lane = b.op("Sub", lane, b.op("Mul", first_block, in_block))
    first_row = b.op("Min", b.op("Mul", lane, k), rows)
    lane_rows = b.op("Min", b.op("Sub", rows, first_row), k)
    real = b.flat(b.op("Transpose", b.cast(lane_rows, BOOL)))
    order = b.op("Compress", b.op("Transpose", b.op("Reshape", numbers, grid)), real)

    # Block lengths and states; each pointer stands on the word read last.
    words_at = b.op("Sub", end, head["W"])
    states_at = b.op("Sub", words_at, b.op("Mul", head["L"], two))
    lengths_at = b.op("Sub", states_at, b.op("Mul", num_blocks, two))
    lengths, starts = (
        b.u32(b.cast(b.slice(blob, *ends), INT64))
        for ends in ((lengths_at, states_at), (states_at, words_at))
    )
    states_of_lanes = b.op("ScatterND", b.op("Expand", word, padded), b.column(order), starts)
    states_of_lanes = b.cast(states_of_lanes, UINT32)
    last_word = b.op("Sub", num_words, one)
    pointer = b.op("Add", b.before(lengths), b.op("Sub", words_at, one))
    pointer = b.op("Unsqueeze", b.op("Min", pointer, last_word), b.ints(0))
    tail = b.op("Expand", b.uint32(0), in_block)
    code = b.op("Concat", b.cast(blob, UINT32), tail, axis=0)

    # What the steps use, as int32; classes come times 256, the size of a row of `where`.
    used = [first_row, lane_rows, pointer, b.op("Mul", base, byte), set_at, b_size, c_size]
    narrow = b.cast(b.op("Concat", *used, *classes_at, axis=0), INT32)
    parts = b.ops("Split", 10, narrow, b.ints(32, 32, *[1] * 8))
    first_row, lane_rows, pointer, base, set_at, b_size, c_size, *classes_at = parts
    class_of = b.op("Concat", b.cast(classes, INT32), b.int32(0), axis=0)
    class_of = b.op("Mul", class_of, b.int32(SYMBOLS))
    class_limit, last_word = b.cast(absent, INT32), b.cast(last_word, INT32)
    transitions = b.cast(b.ints(*TRANSITIONS), INT32) if trellis else ""
    low_bits = ""
    if wide:
        low_bits = b.op("Mod", b.op("Div", rest, b.ints(4096)), b.ints(16))
        low_bits = b.cast(b.op("Min", low_bits, b.ints(8)), UINT32)

    def refill(x: str, pointer: str) -> tuple[str, str]:
        """Step 5 of 2.6: states and pointers after it."""
        low = b.cast(b.op("Less", x, b.uint32(LOWEST_STATE)), UINT8)
        taken = b.op("CumSum", b.op("Reshape", b.cast(low, INT32), grid), b.ints(0))
        place = b.op("Add", taken, pointer)
        pointer = b.op("Min", b.slice(place, b.ints(31), in_block), last_word)
        word = b.op("GatherElements", code, b.flat(place))
        change = b.op("Add", b.op("Mul", x, b.uint32(LOWEST_STATE - 1)), word)
        return b.op("Add", x, b.op("Mul", change, b.cast(low, UINT32))), pointer

    def class_at(place: str, axis: int) -> str:
        """Flat classes of one axis at the given places in it."""
        place = b.op("Min", b.op("Add", place, classes_at[axis]), class_limit)
        return b.op("GatherElements", class_of, b.flat(place))

    def shift(value: str, by: str, direction: str) -> str:
        return b.op("BitShift", value, by, direction=direction)

    # One step.
    b.open_graph()
    x, point, v, c, kept, *row_parts = carry = [b.name() for _ in range(8 if wide else 7)]
    states = [b.name()] * trellis
    step = b.name()
    next_c = b.op("Add", c, b.int32(1))
    keep = b.cast(b.op("Less", next_c, c_size), INT32)  # 0 where a row begins
    next_c = b.op("Mul", next_c, keep)
    next_kept = b.op("Add", kept, keep)
    same = b.cast(b.op("ReduceMin", keep), BOOL)
    b.open_graph()
    then_graph = b.close_graph([b.op("Identity", value) for value in row_parts])
    b.open_graph()
    rows_done = b.op("Sub", step, next_kept)
    row = b.op("Add", first_row, rows_done)
    a = b.op("Div", row, b_size)
    sums = b.op("Add", class_at(a, 0), class_at(b.op("Sub", row, b.op("Mul", a, b_size)), 1))
    alive = b.cast(b.op("Less", rows_done, lane_rows), INT32)
    row_class = b.op("Add", b.op("Reshape", sums, grid), base)
    least, most = b.int32(-128 * SYMBOLS), b.int32(127 * SYMBOLS)
    fresh = [
        b.op("Min", b.op("Max", row_class, least), most),
        b.op("Add", b.op("Mul", alive, set_at), b.int32(128)),
    ]
    if wide:
        fresh.append(b.flat(b.op("Mul", b.cast(alive, UINT32), low_bits)))
    else_graph = b.close_graph(fresh)
    row_parts = b.ops("If", len(fresh), same, then_branch=then_graph, else_branch=else_graph)
    row_class, row_set, *low = row_parts
    y = b.op("Add", row_class, b.op("Unsqueeze", class_at(next_c, 2), b.ints(0)))
    y = b.op("Min", b.op("Max", y, b.int32(0)), b.int32((CLASSES - 1) * SYMBOLS))
    place = b.op("Add", b.op("Add", y, row_set), b.op("Mul", v, keep))
    if trellis:
        state = b.op("Mul", states[0], keep)
        quantiser = b.op("Div", state, b.int32(FIRST_OF_SECOND))
        place = b.op("Add", place, b.op("Mul", quantiser, b.int32(SET_SIZE)))
    offset = b.op("GatherElements", where, b.flat(place))
    # high = x // 4096 - 4096; the slot is x - 4096 * (x // 4096), x' = freq * high + entry // 256.
    total = b.uint32(4096)
    high = b.op("Sub", shift(x, b.uint32(12), "RIGHT"), total)
    slot = b.op("Sub", x, b.op("Mul", high, total))
    entry = b.op("GatherElements", slots, b.cast(b.op("Add", slot, offset), INT32))
    next_x = b.op("Mul", shift(entry, b.uint32(20), "RIGHT"), high)
    next_x = b.op("Add", next_x, shift(entry, b.uint32(8), "RIGHT"))
    next_x, next_point = refill(next_x, point)
    symbol = b.cast(entry, INT8)
    coded = b.cast(symbol, INT32)
    next_v = b.op("Reshape", coded, grid)
    if wide:
        top = shift(next_x, low[0], "RIGHT")
        bits = b.op("Sub", next_x, shift(top, low[0], "LEFT"))
        symbol = b.op("Add", shift(b.cast(coded, UINT32), low[0], "LEFT"), bits)
        next_x, next_point = refill(top, next_point)
    if trellis:
        number = b.op("Reshape", b.cast(symbol, INT32), grid) if wide else next_v
        index = b.op("Add", state, b.op("Mod", number, factor))
        state = b.op("GatherElements", transitions, b.flat(index))
        states.append(b.op("Reshape", state, grid))
        shorter = b.op("Mul", b.op("Sign", number), quantiser)
        symbol = b.flat(b.op("Sub", b.op("Mul", number, factor), shorter))
        symbol = b.cast(symbol, INT16 if wide else INT8)
    elif wide:
        symbol = b.cast(symbol, INT16)
    kinds = [UINT32, *[INT32] * 6, *[UINT32] * wide, *[INT32] * trellis]
    ranks = [1, *[2] * 6, *[1] * wide, *[2] * trellis]
    body = b.close_graph(
        [next_x, next_point, next_v, next_c, next_kept, *row_parts, *states[1:], symbol],
        [*zip([*carry, *states[:1]], kinds, strict=True), (step, INT32)],
        [*zip(kinds, ranks, strict=True), (INT16 if wide else INT8, 1)],
    )
    # Every lane begins a row in step 0, so that v, the parts of a row and the states of a trellis
    # may begin as anything.
    initial = [
        states_of_lanes,
        pointer,
        first_row,
        c_size,
        b.op("Sub", c_size, c_size),
        first_row,
        first_row,
    ]
    initial += [states_of_lanes] * wide + [first_row] * trellis
    steps = b.cast(b.flat(b.range(num_steps)), INT32)
    *_, symbols = b.ops(
        "Scan",
        len(initial) + 1,
        *initial,
        steps,
        body=body,
        num_scan_inputs=1,
        scan_output_axes=[1],
    )
    return b.op("Gather", symbols, order), tensor_lanes, tensor_steps
