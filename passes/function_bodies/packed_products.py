# SPDX-License-Identifier: Apache-2.0
"""`toolkit.MatMulPacked` and `toolkit.ConvPacked`, and the same with `Codebook` behind the name:
products with packed weights.

A field of `bits` bits is stored in parts of 8, 4, 2 and 1 bits, those that `bits` is the sum of;
the place of a part is a number of its output plus a number of its input
(`runtime/csrc/cuda/packed_layout.h`). All sums are in float32.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from passes.function_bodies.body_builder import FLOAT, INT64, UINT32, BodyBuilder
from passes.function_bodies.decode_product import CONV_ATTRIBUTES

FLOAT16 = TensorProto.FLOAT16
_CAST_LIKE_SINCE = 15
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
    weight = _weight(b, packed, scales, more, codebook, (outputs, inputs, bits, group))
    turned = b.op("Transpose", weight, perm=[1, 0])
    output = b.cast(b.op("MatMul", b.cast(x, FLOAT), turned), FLOAT16)
    name = "MatMulPackedCodebook" if codebook else "MatMulPacked"
    return b.function(name, [output], list(_ATTRIBUTES))


def conv_packed(opset: int, codebook: bool = False) -> onnx.FunctionProto:
    """ConvPacked(x, packed, scales, zeros[, bias]){shape, bits, block_size, Conv's} -> x's type.

    The weight has the shape; its first dimension are outputs, all others inputs. x: T; scales and
    zeros: T [groups, outputs]; ConvPackedCodebook has a codebook, T [2^bits], in the place of
    zeros. T is float32, or from opset 15 on float16 as well.
    """
    b = BodyBuilder(opset, 5)
    x, packed, scales, more, bias = b.inputs
    shape = b.attribute("shape", "value_ints")
    bits, group = (b.flat(b.attribute(name, "value_int")) for name in ("bits", "block_size"))
    outputs = b.slice(shape, b.ints(0), b.ints(1))
    inputs = b.op("Div", b.op("ReduceProd", shape, keepdims=1), outputs)
    weight = _weight(b, packed, scales, more, codebook, (outputs, inputs, bits, group))
    if opset >= _CAST_LIKE_SINCE:
        weight = b.op("CastLike", weight, scales)
    own = CONV_ATTRIBUTES
    output = b.op("Conv", x, b.op("Reshape", weight, shape), bias, refs=own)
    name = "ConvPackedCodebook" if codebook else "ConvPacked"
    return b.function(name, [output], ["shape", "bits", "block_size", *own])


def _weight(
    b: BodyBuilder,
    packed: str,
    scales: str,
    more: str,
    codebook: bool,
    sizes: tuple[str, str, str, str],
) -> str:
    """A weight, float32 [outputs, inputs]; sizes are outputs, inputs, bits and group."""
    outputs, inputs, bits, group = sizes
    fields = _fields(b, packed, outputs, inputs, bits)

    def spread(values: str) -> str:
        """[groups, outputs] as float32 [outputs, inputs]."""
        turned = b.op("Transpose", b.cast(values, FLOAT), perm=[1, 0])
        wide = b.op("Expand", b.op("Unsqueeze", turned, b.ints(2)), group)
        flat = b.op("Reshape", wide, b.op("Concat", outputs, b.ints(-1), axis=0))
        return b.slice(flat, b.ints(0), inputs, axis=1)

    if codebook:
        values = b.cast(b.op("Gather", more, fields), FLOAT)
    else:
        values = b.op("Sub", b.cast(fields, FLOAT), spread(more))
    return b.op("Mul", values, spread(scales))


def _fields(b: BodyBuilder, packed: str, outputs: str, inputs: str, bits: str) -> str:
    """The fields of a weight, int64 [outputs, inputs]."""

    def times(one: str, other: str) -> str:
        return b.op("Mul", one, other)

    def plus(*terms: str) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = b.op("Add", total, term)
        return total

    def over(one: str, other: str | int) -> str:
        return b.op("Div", one, b.ints(other) if isinstance(other, int) else other)

    def rest(one: str, other: str | int) -> str:
        return b.op("Mod", one, b.ints(other) if isinstance(other, int) else other)

    # The widest part is the highest power of two in bits.
    widest = b.ints(1)
    for power in (2, 4, 8):
        widest = b.op(
            "Max", widest, times(b.ints(power), b.op("Min", over(bits, power), b.ints(1)))
        )
    chunk = over(b.ints(256), widest)
    chunks = over(plus(inputs, chunk, b.ints(-1)), chunk)
    lane_words = over(times(b.ints(4), bits), widest)
    row, column = b.flat(b.range(outputs)), b.flat(b.range(inputs))
    inside = rest(column, chunk)
    tile = times(over(row, 16), times(chunks, b.ints(32)))
    at_chunk = times(over(column, chunk), b.ints(32))
    # The lane is 4 * (row % 8) + input % 32 / 8. Of pairs in it, those of the outputs m and m + 8
    # take turns.
    lane_row, lane_column = times(rest(row, 8), b.ints(4)), over(rest(inside, 32), 8)
    product = plus(times(over(inside, 32), b.ints(2)), over(rest(inside, 8), 4))
    pair = plus(times(product, b.ints(4)), times(over(rest(inside, 4), 2), b.ints(2)))
    second_row, second = over(rest(row, 16), 8), rest(inside, 2)
    fields = ""
    for part in (8, 4, 2, 1):
        present = rest(over(bits, part), 2)
        bit = b.op("Sub", bits, rest(bits, 2 * part))
        before = times(over(times(b.ints(4), bit), widest), present)
        words = times(over(b.ints(4 * part), widest), present)
        word = plus(
            b.op("Unsqueeze", plus(times(tile, lane_words), times(lane_row, words)), b.ints(1)),
            plus(
                times(at_chunk, lane_words),
                times(before, b.ints(32)),
                times(lane_column, words),
                times(over(pair, 16 // part), present),
            ),
        )
        shift = plus(
            b.op("Unsqueeze", times(second_row, b.ints(part)), b.ints(1)),
            plus(times(rest(pair, 16 // part), b.ints(part)), times(second, b.ints(16))),
        )
        value = b.op(
            "BitShift", b.op("Gather", packed, word), b.cast(shift, UINT32), direction="RIGHT"
        )
        value = times(rest(b.cast(value, INT64), 1 << part), present)
        value = times(
            value,
            b.cast(b.op("BitShift", b.uint32(1), b.cast(bit, UINT32), direction="LEFT"), INT64),
        )
        fields = b.op("Add", fields, value) if fields else value
    return fields
