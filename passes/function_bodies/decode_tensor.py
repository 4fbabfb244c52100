# SPDX-License-Identifier: Apache-2.0
"""`toolkit.DecodeTensor` and `toolkit.DecodeTensor16`: one tensor of a wide blob, as symbols."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import DOMAIN, INT8, BodyBuilder


def decode_tensor(opset: int, wide: bool = False) -> onnx.FunctionProto:
    """DecodeTensor(blob uint16 [n]){tensor, shape} -> int8 [shape]; DecodeTensor16 int16."""
    b = BodyBuilder(opset, 1)
    refs = {"tensor": "INT", "shape": "INTS"}
    symbols = b.op("WideTensor", b.inputs[0], domain=DOMAIN, refs=refs)
    name = "DecodeTensor16" if wide else "DecodeTensor"
    output = b.op("Identity", symbols) if wide else b.cast(symbols, INT8)
    return b.function(name, [output], ["tensor", "shape"])
