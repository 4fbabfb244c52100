# SPDX-License-Identifier: Apache-2.0
"""Finds what a weight is multiplied with, by the operators that use it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx_ir as ir

from passes.moments.layer_inputs import (
    ConvolutionInput,
    LayerInput,
    MatrixInput,
    SequenceInput,
    StateInput,
    TableInput,
    TransposedInput,
)
from passes.operator_inputs import integer_attribute
from passes.schemes.moments import MatrixLayout
from passes.select_weights import Weight, WeightUse, weight_uses

Input = LayerInput | TableInput
_STATES = "__states__"


def find_inputs(model: ir.Model, weight: Weight) -> tuple[list[Input], str]:
    """What the uses of ``weight`` multiply it with, and why there is nothing more, "" for no
    reason.

    Recurrent layers without an output of all states are given one. Matrix products come first;
    those that see the weight in another layout than the first one are left out.
    """
    inputs: list[Input] = []
    reason = "no operator that multiplies with it"
    for use in weight_uses(model, weight.value):
        rule = _RULES.get(use.node.op_type)
        if rule is None or use.node.domain not in ("", "ai.onnx"):
            reason = f"used by {use.node.op_type}"
        elif use.axes is None:
            reason = "reshaped on its way"
        elif use.node.graph is not model.graph:
            reason = f"used by {use.node.op_type} in a subgraph"
        else:
            shape = tuple(weight.shape[axis] for axis in use.axes)
            found = rule(use, use.axes, shape)
            if found is not None:
                inputs.append(found)
            else:
                reason = f"used by {use.node.op_type} in a way that is not followed"
    layers = [found for found in inputs if isinstance(found, LayerInput)]
    if layers:
        return [found for found in layers if found.layout == layers[0].layout], ""
    tables = [found for found in inputs if isinstance(found, TableInput)]
    return [t for t in tables if t.axis == tables[0].axis], "" if tables else reason


def _name(node: ir.Node, index: int) -> str | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or not value.name else str(value.name)


def _matrices(axes: tuple[int, ...], shape: tuple[int, ...], feature: int) -> MatrixLayout:
    """A stack of matrices in the last two axes, of which one holds the features."""
    rank = len(shape)
    output = 2 * rank - 3 - feature
    return MatrixLayout(axes, shape, tuple(range(rank - 2)), (feature,), (output,))


def _matmul(use: WeightUse, axes: tuple[int, ...], shape: tuple[int, ...]) -> Input | None:
    other = _name(use.node, 1 - use.index)
    if other is None or len(shape) < 2 or prod(shape[:-2]) > 1 and not _stacked(use, shape):
        return None
    rank = len(shape)
    if use.index == 1:
        return MatrixInput(other, -1, _matrices(axes, shape, rank - 2))
    return MatrixInput(other, -2, _matrices(axes, shape, rank - 1))


def _stacked(use: WeightUse, shape: tuple[int, ...]) -> bool:
    """Whether the other side has a matrix for each of the weight's."""
    other = use.node.inputs[1 - use.index]
    known = None if other is None or other.shape is None else tuple(other.shape)
    return known is not None and known[:-2] == shape[:-2]


def _gemm(use: WeightUse, axes: tuple[int, ...], shape: tuple[int, ...]) -> Input | None:
    if use.index > 1 or len(shape) != 2:
        return None
    other = _name(use.node, 1 - use.index)
    flipped = bool(integer_attribute(use.node, "transB" if use.index else "transA", 0))
    away = bool(integer_attribute(use.node, "transA" if use.index else "transB", 0))
    if other is None:
        return None
    if use.index == 1:
        return MatrixInput(other, -2 if away else -1, _matrices(axes, shape, int(flipped)))
    return MatrixInput(other, -1 if away else -2, _matrices(axes, shape, 1 - int(flipped)))


def _convolution(use: WeightUse, axes: tuple[int, ...], shape: tuple[int, ...]) -> Input | None:
    group, rank = integer_attribute(use.node, "group", 1), len(shape)
    if use.index != 1 or rank < 3 or shape[0] % group or _name(use.node, 0) is None:
        return None
    split = (group, shape[0] // group, *shape[1:])
    layout = MatrixLayout(axes, split, (0,), tuple(range(2, rank + 1)), (1,))
    return ConvolutionInput(use.node, shape[2:], layout)


def _transposed(use: WeightUse, axes: tuple[int, ...], shape: tuple[int, ...]) -> Input | None:
    group, name = integer_attribute(use.node, "group", 1), _name(use.node, 0)
    if use.index != 1 or len(shape) < 3 or shape[0] % group or name is None:
        return None
    split = (group, shape[0] // group, *shape[1:])
    layout = MatrixLayout(axes, split, (0,), (1,), tuple(range(2, len(split))))
    return TransposedInput(name, layout)


def _recurrent(use: WeightUse, axes: tuple[int, ...], shape: tuple[int, ...]) -> Input | None:
    node, given = use.node, _name(use.node, 0)
    if use.index not in (1, 2) or len(shape) != 3 or given is None:
        return None
    layout = MatrixLayout(axes, shape, (0,), (2,), (1,))
    batch_first = bool(integer_attribute(node, "layout", 0))
    if use.index == 1:
        return SequenceInput(given, batch_first, layout)
    states = node.outputs[0]
    if not states.name:
        states.name = f"{_STATES}{use.node.outputs[-1].name}"
    way = node.attributes.get("direction")
    kind = "forward" if way is None else way.as_string()
    backward = {"forward": (False,), "reverse": (True,)}.get(kind, (False, True))
    return StateInput(str(states.name), _name(node, 5), backward, batch_first, layout)


def _gather(use: WeightUse, axes: tuple[int, ...], shape: tuple[int, ...]) -> Input | None:
    name = _name(use.node, 1)
    if use.index != 0 or name is None:
        return None
    return TableInput(axes[integer_attribute(use.node, "axis", 0)], name)


def _slice(use: WeightUse, axes: tuple[int, ...], shape: tuple[int, ...]) -> Input | None:
    """A Slice of one axis by steps of one, as tables of positions are read."""
    node = use.node
    start, stop = _name(node, 1), _name(node, 2)
    chosen = [_constant(node, index) for index in (3, 4)]
    one_axis = [0] if len(node.inputs) < 4 or node.inputs[3] is None else chosen[0]
    steps = [1] if len(node.inputs) < 5 or node.inputs[4] is None else chosen[1]
    if use.index != 0 or start is None or stop is None or steps != [1]:
        return None
    if one_axis is None or len(one_axis) != 1:
        return None
    return TableInput(axes[one_axis[0]], start=start, stop=stop)


def _constant(node: ir.Node, index: int) -> list[int] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(item) for item in tensor.numpy().reshape(-1)]


_RULES: dict[str, Callable[[WeightUse, tuple[int, ...], tuple[int, ...]], Input | None]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Gather": _gather,
    "Slice": _slice,
}
