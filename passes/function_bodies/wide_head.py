# SPDX-License-Identifier: Apache-2.0
"""`toolkit.WideHead`: the fields of a wide body (FORMAT.md 2.2)."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import DOMAIN, INT64, BodyBuilder

HEADER_WORDS = 18
FIELDS = ("sets", "side", "nested", "G", "L", "D", "T", "W", "X", "P", "U")


def wide_head(opset: int) -> onnx.FunctionProto:
    """WideHead(blob uint16 [n], start) -> FIELDS, int64 [1] each.

    start is int64 [1], the first word of the body. `sets` and `side` are the words at which the set
    directory and the side information begin; `nested` is 0 or 1.
    """
    b = BodyBuilder(opset, 2)
    blob, start = b.inputs
    end = b.op("Add", start, b.ints(HEADER_WORDS))
    words = b.u32(b.cast(b.slice(blob, start, end), INT64))
    first, flags, *fields = b.split(words, 9)
    high = b.ints(65536)
    sets = b.op("Add", end, b.op("Mul", b.op("Mod", first, high), b.ints(10)))
    side = b.op("Add", sets, b.op("Div", first, high))
    nested = b.op("Mod", b.op("Div", flags, b.ints(2)), b.ints(2))
    return b.function("WideHead", [sets, side, nested, b.op("Div", flags, high), *fields])


def add_head(b: BodyBuilder, blob: str, start: str) -> dict[str, str]:
    """A call of WideHead; the names of its outputs by field."""
    return dict(
        zip(FIELDS, b.ops("WideHead", len(FIELDS), blob, start, domain=DOMAIN), strict=True)
    )


def add_directory(b: BodyBuilder, blob: str, start: str, head: dict[str, str]) -> str:
    """int64 [N, 5]: A, B, C, k, and flags + 2^16 base of each tensor."""
    begin = b.op("Add", start, b.ints(HEADER_WORDS))
    words = b.cast(b.slice(blob, begin, head["sets"]), INT64)
    return b.op("Reshape", b.u32(words), b.ints(-1, 5))


def add_lane_counts(b: BodyBuilder, columns: list[str]) -> tuple[str, str, str]:
    """Rows, lanes and most steps of each tensor from its A, B, C, k; all int64 [N, 1]."""
    a_size, b_size, c_size, k, *_ = columns
    one = b.ints(1)
    rows = b.op("Mul", a_size, b_size)
    lanes = b.op("Add", b.op("Div", b.op("Sub", rows, one), k), one)
    return rows, lanes, b.op("Mul", c_size, k)
