# SPDX-License-Identifier: Apache-2.0
"""Rules of the operators that keep channels where they are: activations, arithmetic of several
values, pooling, reductions over other axes."""

from __future__ import annotations

import onnx_ir as ir

from passes.channels.labels import CannotTraceError, Layout
from passes.channels.trace import (
    Rule,
    Trace,
    constant_of,
    describe,
    dims_of,
    integer,
    integers,
    integers_of,
    known_rank,
    unused,
)


def unary(trace: Trace, node: ir.Node) -> None:
    """One value in, the same channels out; further inputs (bounds of Clip) are scalars."""
    layout = trace.layout(node)
    if layout is not None:
        for output in node.outputs:
            trace.give(output, layout.axis, layout.labels)


def arithmetic(trace: Trace, node: ir.Node) -> None:
    """Several values, broadcast: channels that meet are coupled (residual Add, gates of
    squeeze-and-excitation blocks), constants along the channel axis go with them."""
    inputs = [value for value in node.inputs if value is not None]
    if not any(value in trace.layouts for value in inputs):
        return
    rank = max(known_rank(value) for value in inputs)
    first: Layout | None = None
    for value in inputs:
        layout = trace.layouts.get(value)
        if layout is not None:
            axis = layout.axis + rank - known_rank(value)
            if first is None:
                first = Layout(axis, layout.labels)
            elif first.axis != axis:
                raise CannotTraceError(
                    f"{describe(node)}: channels on axes {first.axis} and {axis}"
                )
            else:
                trace.labels.join(first.labels, layout.labels)
    if first is None:
        return
    for index, value in enumerate(node.inputs):
        if value is None or value in trace.layouts:
            continue
        axis = first.axis - rank + known_rank(value)
        size = 1 if axis < 0 else (dims_of(value) or ())[axis]
        if size == 1:
            continue
        if constant_of(value) is None:
            raise CannotTraceError(
                f"{describe(node)}: {value.name} has fixed channels on axis {axis}"
            )
        trace.constant(node, index, axis, first.labels)
    trace.give(node.outputs[0], first.axis, first.labels)


def pooling(trace: Trace, node: ir.Node) -> None:
    """Pooling works on the axes from 2 on."""
    layout = trace.layout(node)
    if layout is None:
        return
    if layout.axis != 1 or not unused(node.outputs[1:]):
        raise CannotTraceError(f"{describe(node)}: pools over channels, or gives their indices")
    trace.give(node.outputs[0], 1, layout.labels)


def softmax(trace: Trace, node: ir.Node) -> None:
    """Softmax and its kind, over another axis than the channels'."""
    layout = trace.layout(node)
    if layout is None:
        return
    if integer(node, "axis", -1) % known_rank(node.outputs[0]) == layout.axis:
        raise CannotTraceError(f"{describe(node)}: normalises over channels")
    trace.give(node.outputs[0], layout.axis, layout.labels)


def reduction(trace: Trace, node: ir.Node) -> None:
    """Reductions over other axes than the channels'."""
    layout = trace.layout(node)
    value = node.inputs[0]
    if layout is None or value is None:
        return
    axes = integers(node, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = integers_of(node.inputs[1])
        if axes is None:
            raise CannotTraceError(f"{describe(node)}: its axes are computed")
    rank = known_rank(value)
    if not axes:
        axes = [] if integer(node, "noop_with_empty_axes", 0) else list(range(rank))
    reduced = {axis % rank for axis in axes}
    if layout.axis in reduced:
        raise CannotTraceError(f"{describe(node)}: reduces over channels")
    axis = layout.axis
    if not integer(node, "keepdims", 1):
        axis -= sum(other < axis for other in reduced)
    trace.give(node.outputs[0], axis, layout.labels)


def padding(trace: Trace, node: ir.Node) -> None:
    """Pad of other axes than the channels'."""
    layout = trace.layout(node)
    value = node.inputs[0]
    if layout is None or value is None:
        return
    rank, axis = known_rank(value), layout.axis
    pads = integers_of(node.inputs[1])
    if pads is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
        raise CannotTraceError(f"{describe(node)}: its pads are computed, or given for some axes")
    if pads[axis] or pads[axis + rank]:
        raise CannotTraceError(f"{describe(node)}: pads channels")
    trace.give(node.outputs[0], axis, layout.labels)


_UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
_ARITHMETIC = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean",
    "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
_POOLING = (
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool",
)  # fmt: skip
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

ELEMENTWISE_RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_ARITHMETIC, arithmetic),
    **dict.fromkeys(_POOLING, pooling),
    **dict.fromkeys(_REDUCTIONS, reduction),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    "Pad": padding,
}
