# SPDX-License-Identifier: Apache-2.0
"""`toolkit.DecodeLookup`: one tensor of a wide blob, as entries of a codebook."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import DOMAIN, INT64, BodyBuilder


def decode_lookup(opset: int) -> onnx.FunctionProto:
    """DecodeLookup(blob, codebook [n]){tensor, shape, offset} -> codebook[symbol + offset] [shape].

    An index outside of the codebook, of a corrupted blob, takes the nearest entry.
    """
    b = BodyBuilder(opset, 2)
    blob, codebook = b.inputs
    symbols = b.op("WideTensor", blob, domain=DOMAIN, refs={"tensor": "INT", "shape": "INTS"})
    index = b.op("Add", b.cast(symbols, INT64), b.attribute("offset", "value_int"))
    last = b.op("Sub", b.op("Shape", codebook), b.ints(1))
    index = b.op("Max", b.op("Min", index, last), b.ints(0))
    output = b.op("Gather", codebook, index)
    return b.function("DecodeLookup", [output], ["tensor", "shape", "offset"])
