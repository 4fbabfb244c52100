# SPDX-License-Identifier: Apache-2.0
"""`toolkit.DecodeDequantize`: one tensor of a wide blob, as float.

out = (symbol - zero_point) * scale in float32, then in the type of the scale. Below opset 15 ONNX
cannot cast to the type of another value: there the output is float32.
"""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import BOOL, DOMAIN, FLOAT, BodyBuilder

CAST_LIKE_SINCE = 15


def decode_dequantize(opset: int, zero_point: bool = False) -> onnx.FunctionProto:
    """DecodeDequantize(blob, scale[, zero_point]){tensor, shape, axis = 1, block_size = 0}.

    Args:
        zero_point: the nodes give a zero point. A function body cannot ask whether they do.

    scale: [] or [1] for the whole tensor; [count] along `axis` for block_size 0; else of the
    tensor's rank, with ceil(size / block_size) entries along `axis`.
    """
    b = BodyBuilder(opset, 3 if zero_point else 2)
    blob, *parameters = b.inputs
    shape = b.attribute("shape", "value_ints")
    axis = b.flat(b.attribute("axis", "value_int"))
    block = b.flat(b.attribute("block_size", "value_int"))
    symbols = b.op("WideTensor", blob, domain=DOMAIN, refs={"tensor": "INT", "shape": "INTS"})
    rank = b.op("Shape", shape)
    axis = b.op("Mod", axis, rank)
    behind = b.op("Expand", b.ints(1), b.op("Sub", rank, b.op("Add", axis, b.ints(1))))
    column = b.op("Concat", b.ints(-1), behind, axis=0)
    blocked = b.cast(block, BOOL)

    b.open_graph()
    begin, middle = b.ints(0), b.op("Add", axis, b.ints(1))
    around = [
        b.op("ReduceProd", b.slice(shape, begin, axis)),
        b.ints(-1),
        b.op("ReduceProd", b.slice(shape, middle, rank)),
    ]
    cube = b.op("Concat", *around, axis=0)
    entries = b.flat(b.op("Div", b.range(b.op("Gather", shape, axis)), block))
    wide = [
        b.op("Reshape", b.op("Gather", b.op("Reshape", value, cube), entries, axis=1), shape)
        for value in parameters
    ]
    then_graph = b.close_graph(wide)
    b.open_graph()
    else_graph = b.close_graph([b.op("Reshape", value, column) for value in parameters])
    spread = b.ops("If", len(parameters), blocked, then_branch=then_graph, else_branch=else_graph)

    values = [b.cast(value, FLOAT) for value in (symbols, *spread)]
    centred = b.op("Sub", values[0], values[2]) if zero_point else values[0]
    output = b.op("Mul", centred, values[1])
    if opset >= CAST_LIKE_SINCE:
        output = b.op("CastLike", output, parameters[0])
    defaults = {"axis": 1, "block_size": 0}
    return b.function("DecodeDequantize", [output], ["tensor", "shape"], defaults)
