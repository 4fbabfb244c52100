# SPDX-License-Identifier: Apache-2.0
"""Tables of a wide segment as vectors, FORMAT.md 2.4 and 2.5, by standard operators.

Two tables come out of it:

    slots  uint32 [1 + 4096 * tables]: the entry of each slot,
           `frequency << 20 | (slot - cum) << 8 | symbol`; entry 0 keeps a lane that
           has ended in state 65536 and gives symbol 0
    where  uint32 [(1 + Q) * 64 * 256]: for set, class and previous symbol + 128 the index in
           `slots` of its table's slot 0, less 2^24; the first 64 * 256 stand for ended lanes;
           with trellis sets uint32 [(1 + Q) * 2 * 64 * 256]: the quantiser comes behind the set

Only tables with a count above zero have slots, and after them the table that count zero stands for.
"""

from __future__ import annotations

from passes.function_bodies.body_builder import BOOL, INT64, UINT32, BodyBuilder

CLASSES = 64
SYMBOLS = 256
REST = 127
STEPS_OF_AN_OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)
ENDED = 4095 << 20 | 16 << 8  # 4095 * 16 + 16 = 65536
MINUS_STATE_OFFSET = 2**32 - 2**24


def frequency(code: int) -> int:
    """F(q) of FORMAT.md 2.5, for codes 0 ... 80."""
    if code <= 16:
        return code
    return ((STEPS_OF_AN_OCTAVE[code % 8] << (code - 16) // 8) + 2048) // 4096


def add_tables(
    b: BodyBuilder, sets: str, stream: str, num_tables: str, trellis: bool = False
) -> tuple[str, str]:
    """Append the nodes; returns the names of `slots` and `where`.

    Args:
        sets: int64 [Q], the set directory.
        stream: int64 [U], bytes 0 ... 255 of the table stream.
        num_tables: int64 [1], G.
        trellis: there may be trellis sets.
    """
    zero, one, total, byte = b.ints(0), b.ints(1), b.ints(4096), b.ints(SYMBOLS)
    sets = b.op("Reshape", sets, b.ints(-1, *[1] * (3 if trellis else 2)))
    classes, contexts = b.op("Div", sets, byte), b.op("Mod", sets, b.ints(128))
    five = b.op("Div", contexts, b.ints(5))  # 1 where K = 5, else 0
    contextual = b.op("Mul", five, classes)
    sizes = b.op("Mul", contexts, classes)
    if trellis:
        second = b.op("Mod", b.op("Div", sets, b.ints(128)), b.ints(2))  # 1 in trellis sets
        quantisers = b.op("Add", second, one)
        sizes = b.op("Mul", sizes, quantisers)
    thresholds = b.op("Add", contextual, contextual)
    map_at, mapped = (b.flat(b.op("ReduceSum", value)) for value in (thresholds, sizes))
    firsts_at = b.op("Add", map_at, mapped)
    counts_at = b.op("Add", firsts_at, num_tables)
    codes_at = b.op("Add", counts_at, num_tables)

    # The table that count zero stands for becomes the last one: symbols 0 and 1, codes 127 and 1.
    firsts = b.op("Concat", b.slice(stream, firsts_at, counts_at), zero, axis=0)
    counts = b.slice(stream, counts_at, codes_at)
    counts = b.op("Add", counts, b.op("Div", counts, b.ints(255)))  # 255 stands for 256
    counts = b.op("Concat", counts, b.ints(2), axis=0)
    codes = b.slice(stream, codes_at, b.ints(2**31 - 1))
    codes = b.op("Concat", codes, b.ints(REST), one, axis=0)
    used = b.cast(counts, BOOL)
    rank = b.before(b.cast(used, INT64))
    rank = b.op("Where", used, rank, b.op("ReduceMax", rank))
    firsts, counts = b.op("Compress", firsts, used), b.op("Compress", counts, used)
    starts = b.before(counts)
    num_codes = b.op("Shape", codes)
    table = b.groups(num_codes, b.column(starts), counts)
    symbol = b.op("Gather", b.op("Sub", firsts, starts), table)
    symbol = b.op("Add", b.flat(b.range(num_codes)), symbol)

    last_code = 80
    frequencies = [*(frequency(q) for q in range(last_code + 1)), 0]
    known = b.op("Gather", b.ints(*frequencies), b.op("Min", codes, b.ints(last_code + 1)))
    up_to = b.op("CumSum", known, zero)
    last = b.op("Sub", b.op("Add", starts, counts), one)
    sums = b.op("Gather", up_to, last)
    sums = b.op("Sub", sums, b.op("Gather", b.op("Sub", up_to, known), starts))
    rest = b.op("Gather", b.op("Sub", total, sums), table)
    amount = b.op("Where", b.op("Equal", codes, b.ints(REST)), rest, known)
    present = b.op("Greater", amount, zero)
    amount, symbol = b.op("Compress", amount, present), b.op("Compress", symbol, present)

    num_slots = b.op("Mul", b.op("Shape", counts), total)
    begin = b.op("Min", b.before(amount), b.op("Sub", num_slots, one))
    entry = b.groups(num_slots, b.column(begin), amount)
    packed = b.op("Sub", b.op("Mul", amount, total), begin)
    packed = b.op("Add", b.op("Mul", packed, byte), b.op("Mod", symbol, byte))
    slots = b.op("GatherElements", packed, entry)
    slots = b.op("Add", slots, b.op("Mul", b.flat(b.range(num_slots)), byte))
    slots = b.cast(b.op("Concat", b.ints(ENDED), slots, axis=0), UINT32)

    # where: [Q, 64, 256] from set, class and previous symbol.
    y = b.op("Transpose", b.range(b.ints(CLASSES)))
    y = b.op("Min", y, b.op("Sub", classes, one))
    near_at = b.op("Add", b.before(thresholds), y)
    v = b.op("Sub", b.range(byte), b.ints(128))
    size = b.op("Abs", v)
    near, far = (
        b.cast(b.op("GreaterOrEqual", size, b.op("Gather", stream, at)), INT64)
        for at in (near_at, b.op("Add", near_at, contextual))
    )
    z = b.op("Add", b.op("Mul", b.op("Sign", v), b.op("Add", near, far)), b.ints(2))
    z = b.op("Mul", z, five)
    index = b.op("Add", b.op("Mul", y, contexts), z)
    if trellis:
        quantiser = b.op("Reshape", b.range(b.ints(2)), b.ints(2, 1, 1))
        index = b.op("Mul", index, quantisers)
        index = b.op("Add", index, b.op("Mul", quantiser, second))
    index = b.op("Add", index, b.before(sizes))
    table = b.op("Gather", stream, b.op("Add", index, map_at))
    table = b.op("Min", table, b.op("Sub", num_tables, one))
    base = b.op("Add", b.op("Mul", rank, total), b.ints(MINUS_STATE_OFFSET + 1))
    where = b.flat(b.op("Gather", base, table))
    set_size = CLASSES * SYMBOLS * (2 if trellis else 1)
    ended = b.op("Expand", b.ints(MINUS_STATE_OFFSET), b.ints(set_size))
    return slots, b.cast(b.op("Concat", ended, where, axis=0), UINT32)
