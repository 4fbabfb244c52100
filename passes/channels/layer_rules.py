# SPDX-License-Identifier: Apache-2.0
"""Rules of the operators with weights: Conv, ConvTranspose, Gemm, MatMul, BatchNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from passes.channels.labels import CannotTraceError, Labels, Layout
from passes.channels.trace import (
    LayerUse,
    Rule,
    Trace,
    constant_input,
    constant_of,
    describe,
    dims_of,
    integer,
    known_rank,
    unused,
)


def _input_channels(trace: Trace, node: ir.Node, axis: int, count: int) -> Labels | None:
    """Labels of a layer's input where they lie on ``axis``; others are blocked."""
    layout = trace.layout(node)
    if layout is None:
        return None
    if layout.axis != axis or layout.labels.size != count:
        trace.block(layout, f"{describe(node)}: its channels are on axis {layout.axis}")
        return None
    return layout.labels


def _no_constant_weight(trace: Trace, node: ir.Node) -> bool:
    if constant_of(node.inputs[1]) is not None:
        return False
    for index in range(len(node.inputs)):
        trace.block(trace.layout(node, index), f"{describe(node)}: its weight is no constant")
    return True


def _produce(
    trace: Trace, node: ir.Node, index: int, axis: int, labels: Labels, out_axis: int
) -> None:
    """Output channels of a layer, and its bias, input 2."""
    trace.weight(node, index, axis, labels)
    _bias(trace, node, labels)
    trace.producers.append(LayerUse(node, index, axis, labels))
    trace.give(node.outputs[0], out_axis, labels)


def _bias(trace: Trace, node: ir.Node, labels: Labels) -> None:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return
    dims = dims_of(node.inputs[2])
    if dims is None or constant_of(node.inputs[2]) is None:
        trace.labels.block(labels, f"{describe(node)}: its bias is no constant")
    elif dims and dims[-1] != 1:
        trace.constant(node, 2, len(dims) - 1, labels)


def convolution(trace: Trace, node: ir.Node) -> None:
    """Conv: weight (outputs, inputs / group, taps ...)."""
    if _no_constant_weight(trace, node):
        return
    weight = dims_of(constant_input(node, 1)) or ()
    outputs, inner = int(weight[0] or 0), int(weight[1] or 0)
    group = integer(node, "group", 1)
    labels = _input_channels(trace, node, 1, inner * group)
    if group > 1 and inner == 1:
        _depthwise(trace, node, labels, outputs // group)
        return
    if group == 1:
        fresh = trace.labels.fresh(outputs)
    else:  # the same channels of each group go, so that the groups stay alike
        fresh = np.tile(trace.labels.fresh(outputs // group), group)
    if labels is not None:
        grid = labels.reshape(group, inner)
        trace.labels.join(grid[:1], grid)
        trace.weight(node, 1, 1, grid[0])
        trace.consumers.append(LayerUse(node, 1, 1, labels))
    _produce(trace, node, 1, 0, fresh, 1)


def _depthwise(trace: Trace, node: ir.Node, labels: Labels | None, multiplier: int) -> None:
    """Each output channel depends on one input channel only: both go together."""
    if labels is None:
        return
    outputs = np.repeat(labels, multiplier)
    trace.weight(node, 1, 0, outputs)
    _bias(trace, node, outputs)
    trace.edit(node, None, 0, labels)
    trace.give(node.outputs[0], 1, outputs)


def transposed_convolution(trace: Trace, node: ir.Node) -> None:
    """ConvTranspose: weight (inputs, outputs / group, taps ...)."""
    if _no_constant_weight(trace, node):
        return
    weight = dims_of(constant_input(node, 1)) or ()
    if integer(node, "group", 1) != 1:
        raise CannotTraceError(f"{describe(node)}: grouped transposed convolutions stay")
    labels = _input_channels(trace, node, 1, int(weight[0] or 0))
    if labels is not None:
        trace.weight(node, 1, 0, labels)
        trace.consumers.append(LayerUse(node, 1, 0, labels))
    _produce(trace, node, 1, 1, trace.labels.fresh(int(weight[1] or 0)), 1)


def gemm(trace: Trace, node: ir.Node) -> None:
    """Gemm: weight (inputs, outputs), or the other way round with transB."""
    if _no_constant_weight(trace, node):
        return
    if integer(node, "transA", 0):
        raise CannotTraceError(f"{describe(node)}: transA is not supported")
    weight = dims_of(constant_input(node, 1)) or ()
    axis = 1 if integer(node, "transB", 0) else 0
    labels = _input_channels(trace, node, 1, int(weight[axis] or 0))
    if labels is not None:
        trace.weight(node, 1, axis, labels)
        trace.consumers.append(LayerUse(node, 1, axis, labels))
    _produce(trace, node, 1, 1 - axis, trace.labels.fresh(int(weight[1 - axis] or 0)), 1)


def matrix_product(trace: Trace, node: ir.Node) -> None:
    """MatMul: with a constant matrix on the right a layer, else the product of two values, whose
    batch axes (attention heads) are coupled."""
    weight = dims_of(constant_input(node, 1))
    if constant_of(node.inputs[1]) is None:
        _product_of_values(trace, node)
        return
    if weight is None or len(weight) != 2:
        raise CannotTraceError(f"{describe(node)}: its weight is no matrix")
    rank = known_rank(constant_input(node, 0))
    labels = _input_channels(trace, node, rank - 1, int(weight[0] or 0))
    if labels is not None:
        trace.weight(node, 1, 0, labels)
        trace.consumers.append(LayerUse(node, 1, 0, labels))
    if rank > 1:
        _produce(trace, node, 1, 1, trace.labels.fresh(int(weight[1] or 0)), rank - 1)


def _product_of_values(trace: Trace, node: ir.Node) -> None:
    left, right = constant_input(node, 0), constant_input(node, 1)
    rank = max(known_rank(left), known_rank(right))
    if min(known_rank(left), known_rank(right)) < 2:
        raise CannotTraceError(f"{describe(node)}: a product with a vector")
    shifted: list[Layout | None] = []
    for index, value in enumerate((left, right)):
        layout, shift = trace.layout(node, index), rank - known_rank(value)
        shifted.append(None if layout is None else Layout(layout.axis + shift, layout.labels))
    first, second = shifted
    if first is None and second is None:
        return
    outcome: list[Layout] = []
    for index, layout in enumerate(shifted):
        if layout is None:
            continue
        inner = rank - 1 if index == 0 else rank - 2
        if layout.axis == inner:
            raise CannotTraceError(f"{describe(node)}: sums over channels of two computed values")
        outcome.append(layout)
        if layout.axis < rank - 2:
            other_value, other = (right, second) if index == 0 else (left, first)
            if other is None and _size(other_value, layout.axis - rank) != 1:
                raise CannotTraceError(f"{describe(node)}: only one side has these channels")
    if len(outcome) == 2:
        if outcome[0].axis != outcome[1].axis:
            raise CannotTraceError(f"{describe(node)}: channels on two axes")
        trace.labels.join(outcome[0].labels, outcome[1].labels)
    trace.give(node.outputs[0], outcome[0].axis, outcome[0].labels)


def _size(value: ir.Value, axis: int) -> int | None:
    """The size of an axis counted from the end; 1 where the value has fewer axes."""
    dims = dims_of(value) or ()
    return dims[axis] if -axis <= len(dims) else 1


def normalisation(trace: Trace, node: ir.Node) -> None:
    """BatchNormalization and InstanceNormalization: parameters per channel on axis 1."""
    layout = trace.layout(node)
    if layout is None:
        return
    if layout.axis != 1:
        raise CannotTraceError(f"{describe(node)}: its channels are on axis {layout.axis}")
    if integer(node, "training_mode", 0) or not unused(node.outputs[1:]):
        raise CannotTraceError(f"{describe(node)}: in training mode")
    for index in range(1, len(node.inputs)):
        trace.constant(node, index, 0, layout.labels)
    trace.give(node.outputs[0], 1, layout.labels)


LAYER_RULES: dict[str, Rule] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": matrix_product,
    "BatchNormalization": normalisation,
    "InstanceNormalization": normalisation,
}
