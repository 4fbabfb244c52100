# SPDX-License-Identifier: Apache-2.0
"""`toolkit.TakeTensor`: one tensor out of the matrix of a segment."""

from __future__ import annotations

import onnx

from passes.function_bodies.body_builder import BodyBuilder


def add_cut(b: BodyBuilder, symbols: str, place: list[str], shape: str) -> str:
    """Reshape(symbols[lane : lane + lanes, 0 : steps] as a vector, cut to prod(shape), shape).

    place: lane, lanes, steps, int64 [1] each; shape is int64 [rank].
    """
    lane, lanes, steps = place
    rows = b.slice(symbols, lane, b.op("Add", lane, lanes))
    part = b.slice(rows, b.ints(0), steps, 1)
    return add_shaped(b, b.flat(part), b.ints(0), shape)


def add_shaped(b: BodyBuilder, stream: str, first: str, shape: str) -> str:
    """Reshape(stream[first : first + prod(shape)], shape); first is int64 [1]."""
    end = b.op("Add", first, b.op("ReduceProd", shape))
    return b.op("Reshape", b.slice(stream, first, end), shape)


def take_tensor(opset: int) -> onnx.FunctionProto:
    """TakeTensor(symbols [L, T]){lane, lanes, steps, shape} -> symbols [shape]."""
    b = BodyBuilder(opset, 1)
    place = [b.flat(b.attribute(name, "value_int")) for name in ("lane", "lanes", "steps")]
    output = add_cut(b, b.inputs[0], place, b.attribute("shape", "value_ints"))
    return b.function("TakeTensor", [output], ["lane", "lanes", "steps", "shape"])
