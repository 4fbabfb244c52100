# SPDX-License-Identifier: Apache-2.0
"""What operators that move, pool and normalise elements hand back to their inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from passes.gradients.tape import Given, Rule, Tape
from passes.operator_inputs import integer_attribute


def _x(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.op_type} without an input")
    return value


def _reshaped(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    return [tape.reshaped(given, _x(node)), *[None] * (len(node.inputs) - 1)]


def _transposed(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    order = node.attributes.get("perm")
    if order is None:
        return [tape.op("Transpose", given)]
    back = [int(place) for place in np.argsort(list(order.as_ints()))]
    return [tape.op("Transpose", given, perm=back)]


def _expanded(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    return [tape.summed_to(given, _x(node)), None]


def _joined(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    axis = integer_attribute(node, "axis", 0)
    parts = [value for value in node.inputs if value is not None]
    if len(parts) == 1:
        return [given]
    place = tape.constant([axis])
    sizes = [tape.op("Gather", tape.shape(part), place) for part in parts]
    return list(tape.ops("Split", len(parts), given, tape.op("Concat", *sizes, axis=0), axis=axis))


def _reduced(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    x, kept = _x(node), {n: a for n, a in node.attributes.items() if n != "keepdims"}
    [whole] = tape.again(node, kept | {"keepdims": ir.AttrInt64("keepdims", 1)}, 1)
    spread = tape.op("Expand", tape.reshaped(given, whole), tape.shape(x))
    if node.op_type == "ReduceMean":
        spread = tape.op("Mul", spread, _share(tape, whole, x))
    return [spread, *[None] * (len(node.inputs) - 1)]


def _pooled(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    x = _x(node)
    spread = tape.op("Expand", given, tape.shape(x))
    return [tape.op("Mul", spread, _share(tape, given, x))]


def _share(tape: Tape, few: ir.Value, many: ir.Value) -> ir.Value:
    """Elements of the one per element of the other."""
    counts = [
        tape.op("Cast", tape.op("Size", value), to=int(ir.DataType.FLOAT)) for value in (few, many)
    ]
    return tape.op("Div", *counts)


def _largest(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    """Windows that overlap would need a scatter that adds, which older opsets do not have."""
    kernel = [int(size) for size in node.attributes["kernel_shape"].as_ints()]
    strides = node.attributes.get("strides")
    steps = [1] * len(kernel) if strides is None else [int(step) for step in strides.as_ints()]
    apart = all(step >= size for step, size in zip(steps, kernel, strict=True))
    if not apart or "dilations" in node.attributes or "storage_order" in node.attributes:
        return None
    x, all_of_it = _x(node), tape.constant([-1])
    [_, places] = tape.again(node, node.attributes, 2)
    nothing = tape.op("ConstantOfShape", tape.op("Reshape", tape.op("Size", x), tape.constant([1])))
    flat = tape.op(
        "ScatterElements",
        nothing,
        tape.op("Reshape", places, all_of_it),
        tape.op("Reshape", given, all_of_it),
        axis=0,
    )
    return [tape.reshaped(flat, x)]


def _softmax(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    y, axis = node.outputs[0], tape.constant([integer_attribute(node, "axis", -1)])
    if node.op_type == "LogSoftmax":
        total = tape.op("ReduceSum", given, axis, keepdims=1)
        return [tape.op("Sub", given, tape.op("Mul", tape.op("Exp", y), total))]
    total = tape.op("ReduceSum", tape.op("Mul", given, y), axis, keepdims=1)
    return [tape.op("Mul", y, tape.op("Sub", given, total))]


def _layer_norm(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    """Over the last axis: of n = (x - mean) / s, the gradient less its mean and less what lies
    along n, over s."""
    axis, scale = integer_attribute(node, "axis", -1), node.inputs[1]
    x = _x(node)
    rank = None if x.shape is None else len(x.shape)
    if scale is None or axis not in (-1, (rank or 0) - 1):
        return None
    epsilon = node.attributes.get("epsilon")
    least = 1e-5 if epsilon is None else float(epsilon.as_float())

    def mean(value: ir.Value) -> ir.Value:
        total = tape.op("ReduceSum", value, tape.constant([-1]), keepdims=1)
        return tape.op("Mul", total, _share(tape, total, value))

    centred = tape.op("Sub", x, mean(x))
    variance = tape.op("Add", mean(tape.op("Mul", centred, centred)), tape.number(least))
    over = tape.op("Reciprocal", tape.op("Sqrt", variance))
    normal = tape.op("Mul", centred, over)
    scaled = tape.op("Mul", given, scale)
    along = tape.op("Mul", normal, mean(tape.op("Mul", scaled, normal)))
    rest = tape.op("Sub", tape.op("Sub", scaled, mean(scaled)), along)
    return [tape.op("Mul", rest, over), *[None] * (len(node.inputs) - 1)]


def _batch_norm(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    x, scale, variance = _x(node), node.inputs[1], node.inputs[4]
    if x.shape is None or scale is None or variance is None:
        return None
    epsilon = node.attributes.get("epsilon")
    least = tape.number(1e-5 if epsilon is None else float(epsilon.as_float()))
    factor = tape.op("Div", scale, tape.op("Sqrt", tape.op("Add", variance, least)))
    dims: Sequence[int] = [-1, *[1] * (len(x.shape) - 2)]
    spread = tape.op("Reshape", factor, tape.constant(dims))
    return [tape.op("Mul", given, spread), None, None, None, None]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshaped),
    "Transpose": _transposed,
    "Expand": _expanded,
    "Concat": _joined,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "GlobalAveragePool": _pooled,
    "MaxPool": _largest,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}
