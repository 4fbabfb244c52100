# SPDX-License-Identifier: Apache-2.0
"""`toolkit.DecodeWide` and `DecodeWide16`: a wide blob to the matrix of its symbols.

Side information that is nested is a wide body of its own. A Loop of one turn or two runs the one
set of nodes for both. (Calls of one function both inside and outside of an If are no way: ONNX
Runtime inlines them under equal names, and its optimizers then mix them up.)
"""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import BOOL, INT8, INT16, INT64, BodyBuilder
from passes.function_bodies.wide_head import add_head
from passes.function_bodies.wide_loop import add_wide_loop

BODY_AT = 6


def decode_wide(opset: int, wide: bool = False, trellis: bool = False) -> onnx.FunctionProto:
    """DecodeWide(blob uint16 [n]) -> symbols, int8 [L, T]; DecodeWide16: int16.

    Positions past a lane's end are zero. DecodeWide16 decodes segments of either width. With
    `trellis` the body knows trellis sets, which takes more bytes and time.
    """
    b = BodyBuilder(opset, 1)
    (blob,) = b.inputs
    start, zero, one, two = b.ints(BODY_AT), b.ints(0), b.ints(1), b.ints(2)
    size = b.op("Shape", blob)
    head = add_head(b, blob, start)
    side = head["side"]
    nested = head["nested"]

    # The first body to decode is the one with plain side information: the nested one, if any.
    inner_at = b.op("Add", side, two)
    inner_size = b.u32(b.cast(b.slice(blob, side, inner_at), INT64))
    is_nested = b.cast(nested, BOOL)
    first_start = b.op("Where", is_nested, inner_at, start)
    first_end = b.op("Where", is_nested, b.op("Add", inner_at, inner_size), size)
    inner = add_head(b, blob, first_start)
    class_end = b.op("Add", inner["P"], b.op("Mod", inner["P"], two))
    stop = b.op("Add", class_end, inner["U"])
    words = b.slice(blob, inner["side"], b.op("Add", inner["side"], stop))
    halves = b.op("Div", b.column(b.cast(words, INT64)), b.ints(1, 256))
    data = b.flat(b.cast(halves, INT8))
    streams = [b.slice(data, zero, inner["P"]), b.slice(data, class_end, stop)]

    # One turn decodes one body; its first two tensors are the streams for the next turn.
    b.open_graph()
    turn, go_on, at, end, classes, tables, _ = carry = [b.name() for _ in range(7)]
    symbols, lanes, steps = add_wide_loop(b, blob, (at, end), (classes, tables), wide, trellis)
    values = b.cast(symbols, INT8) if wide else symbols
    far, last = b.ints(2**31 - 1), b.ints(-1)
    first_lanes = b.slice(lanes, zero, one)
    parts = [
        b.slice(
            b.flat(b.slice(b.slice(values, *rows), zero, b.slice(steps, *which), 1)), zero, length
        )
        for rows, which, length in (
            ((zero, first_lanes), (zero, one), head["P"]),
            ((first_lanes, far), (last, far), head["U"]),
        )
    ]
    again = [b.op("Identity", value) for value in (go_on, start, size)]
    kinds = [INT64, BOOL, INT64, INT64, INT8, INT8, INT16 if wide else INT8]
    body = b.close_graph([*again, *parts, symbols], [*zip(carry, kinds, strict=True)], scalars=2)
    turns = b.op("Add", nested, one)
    *_, symbols = b.ops(
        "Loop",
        5,
        turns,
        "",
        first_start,
        first_end,
        *streams,
        b.cast(data, INT16) if wide else data,
        body=body,
    )
    if wide:
        stop = b.op("Mul", b.op("Add", head["L"], head["D"]), two)
        stop = b.op("Sub", b.op("Sub", size, head["W"]), stop)
        begin = b.op("Sub", stop, b.op("Mul", head["X"], b.ints(4)))
        entries = b.op("Reshape", b.cast(b.slice(blob, begin, stop), INT64), b.ints(-1, 4))
        low, high, values, _ = b.split(entries, 4, axis=1)
        place = b.op("Add", low, b.op("Mul", high, b.ints(65536)))
        shape = b.op("Shape", symbols)
        place = b.op("Min", place, b.op("Sub", b.op("ReduceProd", shape), one))
        values = b.flat(b.cast(values, INT16))
        symbols = b.op("ScatterND", b.flat(symbols), place, values)
        symbols = b.op("Reshape", symbols, shape)
    return b.function("DecodeWide16" if wide else "DecodeWide", [symbols])
