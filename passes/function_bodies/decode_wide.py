# SPDX-License-Identifier: Apache-2.0
"""`toolkit.DecodeWide` and `DecodeWide16`: a wide blob to the matrix of its symbols.

They read the side information, which may be nested, and leave the symbols to `WideLoop`.
"""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import DOMAIN, INT8, INT16, INT64, BodyBuilder
from passes.function_bodies.wide_loop import HEADER_WORDS, add_u32, loop_name

BODY_AT = 6


def wide_side(opset: int) -> onnx.FunctionProto:
    """WideSide(blob, start) -> classes, tables, at: side information that is not nested.

    Inputs: blob uint16 [n]; start int64 [1], first word of the body.
    Outputs: classes int64 [P], signed; tables int64 [U], 0 ... 255; at int64 [1], the word at which the
    side information begins.
    """
    b = BodyBuilder(2)
    blob, start = b.inputs
    end = b.op("Add", start, b.ints(HEADER_WORDS))
    fields = add_u32(b, b.slice(blob, start, end))
    counts = b.op("Mod", fields, b.ints(65536))
    sets = b.op("Div", fields, b.ints(65536))
    one = b.ints(1)
    num_tensors = b.slice(counts, b.ints(0), one)
    num_sets = b.slice(sets, b.ints(0), one)
    class_bytes = b.slice(fields, b.ints(7), b.ints(8))
    table_bytes = b.slice(fields, b.ints(8), b.ints(9))
    at = b.op("Add", end, b.op("Mul", num_tensors, b.ints(10)))
    at = b.op("Add", at, num_sets)

    def byte_string(begin: str, count: str) -> tuple[str, str]:
        words = b.op("Div", b.op("Add", count, one), b.ints(2))
        stop = b.op("Add", begin, words)
        part = b.op("Unsqueeze", b.cast(b.slice(blob, begin, stop), INT64), one)
        halves = b.op("Mod", b.op("Div", part, b.ints(1, 256)), b.ints(256))
        return b.slice(b.flat(halves), b.ints(0), count), stop

    classes, tables_at = byte_string(at, class_bytes)
    tables, _ = byte_string(tables_at, table_bytes)
    signed = b.cast(b.cast(classes, INT8), INT64)
    return b.function("WideSide", [signed, tables, at], opset)


def decode_wide(opset: int, wide: bool = False) -> onnx.FunctionProto:
    """DecodeWide(blob uint16 [n]) -> symbols, int8 [L, T]; DecodeWide16: int16.

    Positions past a lane's end are zero. DecodeWide16 decodes segments of either width.
    """
    b = BodyBuilder(1)
    (blob,) = b.inputs
    start, zero, one, two, four = b.ints(BODY_AT), b.ints(0), b.ints(1), b.ints(2), b.ints(4)
    size = b.op("Shape", blob)
    *streams, at = b.ops("WideSide", 3, blob, start, domain=DOMAIN)
    flags = b.slice(blob, b.ints(BODY_AT + 2), b.ints(BODY_AT + 3))
    nested = b.op("Greater", b.cast(flags, INT64), one)
    header = add_u32(b, b.slice(blob, start, b.ints(BODY_AT + HEADER_WORDS)))
    fields = b.ops("Split", 9, header, b.ints(*[1] * 9))

    b.open_graph()
    inner = b.op("Add", at, two)
    inner_end = b.op("Add", inner, add_u32(b, b.slice(blob, at, inner)))
    *inner_streams, _ = b.ops("WideSide", 3, blob, inner, domain=DOMAIN)
    matrix = b.op(loop_name(False), blob, inner, inner_end, *inner_streams, domain=DOMAIN)
    matrix = b.cast(matrix, INT64)
    lanes = zero
    cut = []
    for tensor in range(2):
        begin = b.op("Add", inner, b.ints(HEADER_WORDS + 10 * tensor))
        entry = add_u32(b, b.slice(blob, begin, b.op("Add", begin, b.ints(8))))
        a, b_size, c, k = b.ops("Split", 4, entry, b.ints(1, 1, 1, 1))
        rows = b.op("Mul", a, b_size)
        here = b.op("Div", b.op("Add", rows, b.op("Sub", k, one)), k)
        stop = b.op("Add", lanes, here)
        part = b.slice(b.slice(matrix, lanes, stop), zero, b.op("Mul", k, c), 1)
        cut.append(b.slice(b.flat(part), zero, fields[7 + tensor]))
        lanes = stop
    cut[1] = b.op("Mod", cut[1], b.ints(256))
    then_graph = b.close_graph([], cut)
    b.open_graph()
    else_graph = b.close_graph([], [b.op("Identity", value) for value in streams])
    streams = b.ops("If", 2, nested, then_branch=then_graph, else_branch=else_graph)
    symbols = b.op(loop_name(wide), blob, start, size, *streams, domain=DOMAIN)
    if wide:
        _, _, num_lanes, num_blocks, _, num_words, count, _, _ = fields
        stop = b.op("Mul", b.op("Add", num_lanes, num_blocks), two)
        stop = b.op("Sub", b.op("Sub", size, num_words), stop)
        begin = b.op("Sub", stop, b.op("Mul", count, four))
        entries = b.op("Reshape", b.cast(b.slice(blob, begin, stop), INT64), b.ints(-1, 4))
        low, high, values, _ = b.ops("Split", 4, entries, b.ints(1, 1, 1, 1), axis=1)
        place = b.op("Add", low, b.op("Mul", high, b.ints(65536)))
        shape = b.op("Shape", symbols)
        place = b.op("Min", place, b.op("Sub", b.op("ReduceProd", shape), one))
        values = b.flat(b.cast(values, INT16))
        symbols = b.op("ScatterND", b.flat(symbols), place, values)
        symbols = b.op("Reshape", symbols, shape)
    return b.function("DecodeWide16" if wide else "DecodeWide", [symbols], opset)
