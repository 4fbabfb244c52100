# SPDX-License-Identifier: Apache-2.0
"""`toolkit.TakeRange`: one tensor out of a stream of symbols."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import BodyBuilder
from passes.function_bodies.take_tensor import add_shaped


def take_range(opset: int) -> onnx.FunctionProto:
    """TakeRange(stream [n]){first, shape} -> stream[first : first + prod(shape)] as [shape]."""
    b = BodyBuilder(opset, 1)
    first = b.flat(b.attribute("first", "value_int"))
    output = add_shaped(b, b.inputs[0], first, b.attribute("shape", "value_ints"))
    return b.function("TakeRange", [output], ["first", "shape"])
