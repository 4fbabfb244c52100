# SPDX-License-Identifier: Apache-2.0
"""`toolkit.DecodeMatMul`, `DecodeLeftMatMul`, `DecodeGemm`, `DecodeConv`, and with `Lookup` behind.

A weight is decoded by DecodeDequantize or DecodeLookup, and the standard operator is run with it.
"""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import DOMAIN, BodyBuilder

CONV_ATTRIBUTES = {
    "auto_pad": "STRING",
    "dilations": "INTS",
    "group": "INT",
    "kernel_shape": "INTS",
    "pads": "INTS",
    "strides": "INTS",
}
_OWN: dict[str, dict[str, str]] = {
    "MatMul": {},
    "LeftMatMul": {},
    "Gemm": {"alpha": "FLOAT", "beta": "FLOAT", "transA": "INT", "transB": "INT"},
    "Conv": CONV_ATTRIBUTES,
}
_OF_DECODER = {"tensor": "INT", "shape": "INTS"}


def decode_product(
    opset: int, operator: str, lookup: bool = False, zero_point: bool = False
) -> onnx.FunctionProto:
    """Decode<operator>(x, blob, scale, zero_point[, bias]), or with a codebook for scale and zero
    point; the attributes are those of the decoding op and of the operator.

    Args:
        opset: version of the standard operators.
        operator: "MatMul", "LeftMatMul" (the weight is MatMul's first factor), "Gemm" or "Conv";
            neither MatMul has a bias.
        lookup: the weight comes from a codebook.
        zero_point: the nodes give a zero point. A function body cannot ask whether they do.
    """
    own = _OWN[operator]
    defaults = {"offset": 0} if lookup else {"axis": 1, "block_size": 0}
    has_bias = operator in ("Gemm", "Conv")
    b = BodyBuilder(opset, (3 if lookup else 4) + has_bias)
    x, blob, table, *others = b.inputs
    tables = [table, *others[: 1 if zero_point and not lookup else 0]]
    refs = _OF_DECODER | dict.fromkeys(defaults, "INT")
    decoder = "DecodeLookup" if lookup else "DecodeDequantize"
    weight = b.op(decoder, blob, *tables, domain=DOMAIN, refs=refs)
    bias = others[-1:] if has_bias else []
    if operator == "LeftMatMul":
        output = b.op("MatMul", weight, x)
    else:
        output = b.op(operator, x, weight, *bias, refs=own)
    name = f"Decode{operator}{'Lookup' if lookup else ''}"
    return b.function(name, [output], [*_OF_DECODER, *own], defaults)
