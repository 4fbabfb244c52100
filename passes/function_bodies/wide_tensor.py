# SPDX-License-Identifier: Apache-2.0
"""`toolkit.WideTensor`: one tensor out of a wide blob; what the fused decoders begin with."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import DOMAIN, INT64, BodyBuilder
from passes.function_bodies.decode_wide import BODY_AT
from passes.function_bodies.take_tensor import add_cut
from passes.function_bodies.wide_loop import HEADER_WORDS, add_u32


def wide_tensor(opset: int) -> onnx.FunctionProto:
    """WideTensor(blob uint16 [n]){tensor, shape} -> symbols int16 [shape], of either width."""
    b = BodyBuilder(1)
    (blob,) = b.inputs
    one, ten = b.ints(1), b.ints(10)
    number = b.flat(b.attribute("tensor", "value_int"))
    begin = b.ints(BODY_AT + HEADER_WORDS)
    num_tensors = b.cast(b.slice(blob, b.ints(BODY_AT), b.ints(BODY_AT + 1)), INT64)
    end = b.op("Add", begin, b.op("Mul", num_tensors, ten))
    directory = b.op("Reshape", add_u32(b, b.slice(blob, begin, end)), b.ints(-1, 5))
    a, b_size, c, k, _ = b.ops("Split", 5, directory, b.ints(1, 1, 1, 1, 1), axis=1)
    rows = b.op("Mul", a, b_size)
    lanes = b.op("Div", b.op("Add", rows, b.op("Sub", k, one)), k)
    place = [b.before(lanes), lanes, b.op("Mul", k, c)]
    place = [b.flat(b.op("Gather", value, number)) for value in place]
    symbols = b.op("DecodeWide16", blob, domain=DOMAIN)
    output = add_cut(b, symbols, *place, b.attribute("shape", "value_ints"))
    return b.function("WideTensor", [output], opset, ["tensor", "shape"])
