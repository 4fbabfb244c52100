# SPDX-License-Identifier: Apache-2.0
"""`toolkit.WideTensor`: one tensor out of a wide blob; what the fused decoders begin with."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import DOMAIN, BodyBuilder
from passes.function_bodies.decode_wide import BODY_AT
from passes.function_bodies.take_tensor import add_cut
from passes.function_bodies.wide_head import add_directory, add_head, add_lane_counts


def wide_tensor(opset: int) -> onnx.FunctionProto:
    """WideTensor(blob uint16 [n]){tensor, shape} -> symbols int16 [shape], of either width."""
    b = BodyBuilder(opset, 1)
    (blob,) = b.inputs
    number = b.flat(b.attribute("tensor", "value_int"))
    start = b.ints(BODY_AT)
    directory = add_directory(b, blob, start, add_head(b, blob, start))
    _, lanes, steps = add_lane_counts(b, b.split(directory, 5, axis=1))
    place = [b.flat(b.op("Gather", value, number)) for value in (b.before(lanes), lanes, steps)]
    symbols = b.op("DecodeWide16", blob, domain=DOMAIN)
    output = add_cut(b, symbols, place, b.attribute("shape", "value_ints"))
    return b.function("WideTensor", [output], ["tensor", "shape"])
