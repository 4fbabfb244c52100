# SPDX-License-Identifier: Apache-2.0
"""`toolkit.MatMulPacked` and `toolkit.MatMulPackedCodebook`: products with packed weights.

A word's fields are, from its lowest bits: 2 halves of the tile's outputs, 8 / bits pairs of inputs,
2 inputs. Words are tiles of 16 outputs, chunks of 256 / bits inputs, 8 outputs, 4 groups of inputs,
4 words (`runtime/csrc/cuda/packed_layout.h`). All sums are in float32.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from passes.function_bodies.body_builder import FLOAT, INT64, UINT32, BodyBuilder

FLOAT16 = TensorProto.FLOAT16
_ATTRIBUTES = ("N", "K", "bits", "block_size")


def matmul_packed(opset: int, codebook: bool = False) -> onnx.FunctionProto:
    """MatMulPacked(x, packed, scales, zeros){N, K, bits, block_size} -> float16.

    N outputs, K inputs, block_size inputs that share a scale. x: float16 [..., K]; packed: uint32
    [words]; scales and zeros: float16 [groups, N];
    MatMulPackedCodebook has a codebook, float16 [2^bits], in the place of zeros.
    """
    b = BodyBuilder(opset, 4)
    x, packed, scales, more = b.inputs
    outputs, inputs, bits, group = (b.flat(b.attribute(name, "value_int")) for name in _ATTRIBUTES)
    chunk = b.op("Div", b.ints(256), bits)
    chunks = b.op("Div", b.op("Add", inputs, b.op("Sub", chunk, b.ints(1))), chunk)

    # Fields of a word, one behind the other: shifted down, then what is above is dropped.
    places = b.op("Mul", b.flat(b.range(b.op("Div", b.ints(32), bits))), bits)
    shifted = b.op("BitShift", b.column(packed), b.cast(places, UINT32), direction="RIGHT")
    span = b.op("BitShift", b.uint32(1), b.cast(bits, UINT32), direction="LEFT")
    fields = b.op("Mod", b.cast(shifted, INT64), b.cast(span, INT64))
    eight, four, two = b.ints(8), b.ints(4), b.ints(2)
    pairs = b.op("Div", eight, bits)
    cube = b.op("Concat", b.ints(-1), chunks, eight, four, four, two, pairs, two, axis=0)
    order = b.op("Transpose", b.op("Reshape", fields, cube), perm=[0, 7, 2, 1, 3, 4, 6, 5])
    matrix = b.op("Concat", b.ints(-1), b.op("Mul", chunks, chunk), axis=0)
    rows = b.slice(b.op("Reshape", order, matrix), b.ints(0), outputs)
    fields = b.slice(rows, b.ints(0), inputs, axis=1)

    def spread(values: str) -> str:
        """[groups, outputs] as float32 [outputs, inputs]."""
        turned = b.op("Transpose", b.cast(values, FLOAT), perm=[1, 0])
        wide = b.op("Expand", b.op("Unsqueeze", turned, two), group)
        flat = b.op("Reshape", wide, b.op("Concat", outputs, b.ints(-1), axis=0))
        return b.slice(flat, b.ints(0), inputs, axis=1)

    if codebook:
        values = b.cast(b.op("Gather", more, fields), FLOAT)
    else:
        values = b.op("Sub", b.cast(fields, FLOAT), spread(more))
    weight = b.op("Transpose", b.op("Mul", values, spread(scales)), perm=[1, 0])
    output = b.cast(b.op("MatMul", b.cast(x, FLOAT), weight), FLOAT16)
    name = "MatMulPackedCodebook" if codebook else "MatMulPacked"
    return b.function(name, [output], list(_ATTRIBUTES))
