# SPDX-License-Identifier: Apache-2.0
"""Tables of a wide segment as vectors, FORMAT.md 2.4 and 2.5, by standard operators.

Two tables come out of it:

    slots  uint32 [1 + 4096 * tables]: the entry of each slot, `freq << 20 | (slot - cum) << 8 | symbol`;
           entry 0 keeps a lane that has ended in state 65536 and gives symbol 0
    where  uint32 [(1 + Q) * 64 * 256]: for set, class and previous symbol + 128 the index in `slots`
           of its table's slot 0, less 2^24; the first 64 * 256 stand for lanes that have ended

Only tables with a count above zero have slots, and after them the table that count zero stands for.
"""

from __future__ import annotations

from passes.function_bodies.body_builder import BOOL, INT64, UINT32, BodyBuilder

FREQUENCIES = [
    q
    if q <= 16
    else (
        ((65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)[q % 8] << (q - 16) // 8) + 2048
    )
    // 4096
    for q in range(81)
]
CLASSES = 64
SYMBOLS = 256
ENDED = 4095 << 20 | 16 << 8  # 4095 * 16 + 16 = 65536
STATE_OFFSET = 1 << 24


def add_tables(b: BodyBuilder, sets: str, stream: str) -> tuple[str, str]:
    """Append the nodes; returns the names of `slots` and `where`.

    Args:
        sets: int64 [Q], the set directory.
        stream: int64 [U], bytes 0 ... 255 of the table stream.
    """
    zero, one = b.ints(0), b.ints(1)
    byte = b.ints(SYMBOLS)
    classes = b.op("Div", sets, byte)
    contexts = b.op("Sub", sets, b.op("Mul", classes, byte))
    contextual = b.op("Div", contexts, b.ints(5))  # 1 where K = 5
    sizes = b.op("Mul", contexts, classes)
    thresholds = b.op("Mul", b.op("Mul", contextual, classes), b.ints(2))

    def total(value: str) -> str:
        return b.op("ReduceSum", value, keepdims=1)

    firsts_at, num_tables = total(thresholds), total(sizes)
    counts_at = b.op("Add", firsts_at, num_tables)
    codes_at = b.op("Add", counts_at, num_tables)
    end = b.ints(2**31 - 1)

    # The table that count zero stands for becomes the last one: symbols 0 and 1, codes 127 and 1.
    rest = b.ints(127)
    firsts = b.op("Concat", b.slice(stream, firsts_at, counts_at), zero, axis=0)
    counts = b.slice(stream, counts_at, codes_at)
    counts = b.op("Add", counts, b.op("Div", counts, b.ints(255)))  # 255 stands for 256
    counts = b.op("Concat", counts, b.ints(2), axis=0)
    codes = b.op("Concat", b.slice(stream, codes_at, end), rest, one, axis=0)
    used = b.cast(counts, BOOL)
    rank = b.before(b.cast(used, INT64))
    firsts, counts = b.op("Compress", firsts, used), b.op("Compress", counts, used)

    starts = b.before(counts)
    num_codes = b.op("Shape", codes)

    table = b.groups(num_codes, starts)
    position = b.op("Sub", b.range(num_codes), b.op("Gather", starts, table))
    symbol = b.op("Add", b.op("Gather", firsts, table), position)
    is_rest = b.cast(b.op("Equal", codes, rest), INT64)
    known = b.op("Gather", b.ints(*FREQUENCIES), b.op("Min", codes, b.ints(80)))
    known = b.op("Sub", known, b.op("Mul", is_rest, b.ints(FREQUENCIES[80])))
    total_here = b.op(
        "Gather", b.op("CumSum", known, b.axis), b.op("Add", starts, b.op("Sub", counts, one))
    )
    total_before = b.op("Gather", b.before(known), starts)
    left = b.op("Sub", b.op("Add", b.ints(4096), total_before), total_here)
    frequency = b.op("Add", known, b.op("Mul", is_rest, b.op("Gather", left, table)))
    present = b.op("Greater", frequency, zero)
    frequency, symbol = b.op("Compress", frequency, present), b.op("Compress", symbol, present)

    num_slots = b.op("Mul", b.op("Shape", counts), b.ints(4096))
    begin = b.before(frequency)
    begin = b.op("Max", b.op("Min", begin, b.op("Sub", num_slots, one)), zero)
    entry = b.groups(num_slots, begin)
    packed = b.op("Sub", b.op("Mul", frequency, b.ints(4096)), begin)
    packed = b.op("Add", b.op("Mul", packed, byte), b.op("Mod", symbol, byte))
    slots = b.op("GatherElements", b.cast(packed, UINT32), entry)
    number = b.cast(b.range(num_slots), UINT32)
    slots = b.op("Add", slots, b.op("Mul", number, b.uint32(SYMBOLS)))
    slots = b.op("Concat", b.constant(UINT32, [ENDED]), slots, axis=0)

    # where: [Q, 64, 256] from set, class and previous symbol.
    three = b.ints(-1, 1, 1)

    def of_sets(value: str) -> str:
        return b.op("Reshape", value, three)

    many = of_sets(classes)
    y = b.op("Reshape", b.range(b.ints(CLASSES)), b.ints(-1, 1))
    y = b.op("Min", y, b.op("Sub", many, one))
    near_at = b.op("Add", of_sets(b.before(thresholds)), y)
    v = b.op("Sub", b.range(byte), b.ints(128))
    size = b.op("Abs", v)
    distance = [
        b.cast(b.op("GreaterOrEqual", size, b.op("Gather", stream, at)), INT64)
        for at in (near_at, b.op("Add", near_at, b.op("Mul", many, of_sets(contextual))))
    ]
    z = b.op("Mul", b.op("Sign", v), b.op("Add", *distance))
    z = b.op("Mul", b.op("Add", z, b.ints(2)), of_sets(contextual))
    index = b.op("Add", b.op("Mul", y, of_sets(contexts)), of_sets(b.before(sizes)))
    index = b.op("Add", index, z)
    # A table of count zero has the rank of the next one; it takes the last.
    last = b.op("Sub", b.op("Shape", counts), one)
    unused = b.cast(b.op("Not", used), INT64)
    rank = b.op("Add", rank, b.op("Mul", unused, b.op("Sub", last, rank)))
    base = b.op("Add", b.op("Mul", rank, b.ints(4096)), b.ints(1 - STATE_OFFSET))
    where = b.flat(b.op("Gather", base, index))
    ended = b.op("Expand", b.ints(-STATE_OFFSET), b.ints(CLASSES * SYMBOLS))
    return slots, b.cast(b.op("Concat", ended, where, axis=0), UINT32)
