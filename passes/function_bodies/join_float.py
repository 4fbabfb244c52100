# SPDX-License-Identifier: Apache-2.0
"""`toolkit.JoinFloat` and `toolkit.JoinHalf` in standard operators (FORMAT.md 6).

There is no operator that reads bits as a float before opset 26; the value is computed instead:
(fraction + 1 unless subnormal) · power of two · sign, each factor and each product exact.
"""

from __future__ import annotations

import onnx
from onnx import helper

from passes.function_bodies.body_builder import FLOAT, INT32, BodyBuilder


def join_float(opset: int) -> onnx.FunctionProto:
    """JoinFloat(plane0 int8, plane1, plane2, plane3 uint8, all of one shape) -> float32."""
    b = BodyBuilder(opset, 4)
    exponent = b.op("Add", b.cast(b.inputs[0], INT32), b.int32(128))
    low = b.cast(b.inputs[1], FLOAT)
    step = _floats(b, 256.0)
    for plane in b.inputs[2:]:
        low = b.op("Add", b.op("Mul", low, step), b.cast(plane, FLOAT))
    sign = _sign(b, b.inputs[3])
    # low holds the mantissa's 23 bits above the sign.
    unit = _floats(b, 2.0**-24)
    fraction = b.op("Mul", b.op("Sub", low, sign), unit)
    index = b.op("Max", b.op("Sub", exponent, b.int32(1)), b.int32(0))
    return b.function("JoinFloat", [_value(b, exponent, index, fraction, sign)])


def join_half(opset: int) -> onnx.FunctionProto:
    """JoinHalf(plane0 int8, plane1 uint8){to} -> float16 (to = 10) or bfloat16 (to = 16)."""
    b = BodyBuilder(opset, 2)
    to = b.cast(b.attribute("to", "value_int"), INT32)
    is_float16 = b.op("Div", b.op("Sub", b.int32(16), to), b.int32(6))
    # Below the exponent are 8 bits, in float16 11; its exponents count from 2^-14, not 2^-126.
    span = b.op("Add", b.op("Mul", is_float16, b.int32(1792)), b.int32(256))
    bias = b.op("Mul", is_float16, b.int32(112))
    high = b.op("Add", b.cast(b.inputs[0], INT32), b.int32(128))
    turned = b.op("Add", b.op("Mul", high, b.int32(256)), b.cast(b.inputs[1], INT32))
    exponent = b.op("Div", turned, span)
    sign = _sign(b, b.inputs[1])
    low = b.cast(b.op("Mod", turned, span), FLOAT)
    fraction = b.op("Div", b.op("Sub", low, sign), b.cast(span, FLOAT))
    index = b.op("Max", b.op("Sub", exponent, b.int32(1)), b.int32(0))
    value = _value(b, exponent, b.op("Add", index, bias), fraction, sign)
    return b.function("JoinHalf", [b.op("Cast", value, refs={"to": "INT"})], ["to"])


def estimate_stock_seconds(num_values: int) -> float:
    """Time of either body on one core of stock ONNX Runtime."""
    return 1e-4 + 50e-9 * num_values


def _floats(b: BodyBuilder, *values: float) -> str:
    """A constant of float32: a scalar, or a vector of several values."""
    shape = [len(values)] if len(values) > 1 else []
    return b.op("Constant", value=helper.make_tensor("", FLOAT, shape, values))


def _sign(b: BodyBuilder, plane: str) -> str:
    """The lowest bit of a plane of uint8, as float32."""
    return b.cast(b.op("Mod", b.cast(plane, INT32), b.int32(2)), FLOAT)


def _value(b: BodyBuilder, exponent: str, index: str, fraction: str, sign: str) -> str:
    """(fraction + 1 unless the exponent is 0) · 2^(index − 126) · (1 or −1), float32."""
    # 256 powers as products of two exact ones: 2^-126 … 2^127, then infinity.
    fine = _floats(b, *(2.0**i for i in range(16)))
    coarse = _floats(b, *(2.0 ** (16 * i - 126) for i in range(16)))
    powers = b.flat(b.op("Mul", b.op("Unsqueeze", coarse, b.ints(1)), fine))
    normal = b.cast(b.op("Min", exponent, b.int32(1)), FLOAT)
    scale = b.op("Gather", powers, index)
    magnitude = b.op("Mul", b.op("Add", fraction, normal), scale)
    one = _floats(b, 1.0)
    value = b.op("Mul", magnitude, b.op("Sub", one, b.op("Add", sign, sign)))
    return b.op("Reshape", value, b.op("Shape", b.inputs[0]))  # planes may be scalars
