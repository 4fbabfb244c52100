# SPDX-License-Identifier: Apache-2.0
"""toolkit.DecodeFixed(blob uint16 [w]) -> int16 [n] in standard operators (FORMAT.md 5)."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import INT16, INT64, BodyBuilder
from passes.function_bodies.packed_fields import BODY, fields, signed, unpack


def decode_fixed(opset: int) -> onnx.FunctionProto:
    """The function for models of this opset, 13 or later."""
    body = BodyBuilder(opset, 1)
    (blob,) = body.inputs
    words = body.op("Concat", body.cast(blob, INT64), body.ints(0, 0), axis=0)
    head = body.op("Gather", words, body.ints(BODY, BODY + 1, BODY + 1, BODY + 2))
    low, high, bits, first = fields(body, head, [(0, 16), (0, 8), (8, 8), (0, 16)], [1] * 4)
    n = body.op("Add", low, body.op("Mul", high, body.ints(65536)))
    offsets = unpack(body, words, body.ints(BODY + 3), body.flat(body.range(n)), bits)
    symbols = body.op("Add", offsets, signed(body, first))
    return body.function("DecodeFixed", [body.cast(symbols, INT16)])


def estimate_stock_seconds(num_symbols: int) -> float:
    """Time of the body on one core of stock ONNX Runtime."""
    return 1e-4 + 40e-9 * num_symbols
