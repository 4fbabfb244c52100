# SPDX-License-Identifier: Apache-2.0
"""Finds sizes of inputs that a model leaves open although its first layers fix them: features of a
matrix, channels of a convolution, values of a scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.signature import InputSpec

if TYPE_CHECKING:
    import onnx_ir as ir

Axes = tuple[int | None, ...]
"""For each axis of a value the input's axis that it is, None where it is another."""

_MAX_VALUES = 1_000
_SAME_SHAPE = frozenset(
    {
        *("Abs", "Cast", "Ceil", "Clip", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp"),
        *("Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log"),
        *("LogSoftmax", "Neg", "PRelu", "QuantizeLinear", "Reciprocal", "Relu", "Round"),
        *("Selu", "Sigmoid", "Sign", "Softmax", "Softplus", "Sqrt", "Tanh"),
    }
)
_BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"})
_POOLS = frozenset({"AveragePool", "MaxPool", "LpPool", "Pad", "Resize", "Upsample"})
"""Keep the batch and the channels."""
_CHANNELS = frozenset({"BatchNormalization", "InstanceNormalization"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def fixed_sizes(model: ir.Model) -> dict[str, dict[int, int]]:
    """Sizes of open dimensions of the inputs, by name and axis, where the first operators that they
    come to have weights that leave no choice. What lies behind a Reshape is not looked at."""
    found: dict[str, dict[int, int]] = {}
    for value in model.graph.inputs:
        if value.name is None or value.shape is None or value.is_initializer():
            continue
        sizes: dict[int, int] = {}
        queue: list[tuple[ir.Value, Axes]] = [(value, tuple(range(len(value.shape))))]
        seen = {id(value)}
        while queue and len(seen) < _MAX_VALUES:
            current, axes = queue.pop(0)
            for node, place in current.uses():
                for axis, size in _demands(node, place, len(axes)).items():
                    origin = axes[axis]
                    if origin is not None and not isinstance(value.shape[origin], int):
                        sizes.setdefault(origin, size)
                onward = _onward(node, place, axes)
                if onward is not None and id(node.outputs[0]) not in seen:
                    seen.add(id(node.outputs[0]))
                    queue.append((node.outputs[0], onward))
        if sizes:
            found[value.name] = sizes
    return found


def with_sizes(
    specs: Sequence[InputSpec], sizes: Mapping[str, Mapping[int, int]]
) -> list[InputSpec]:
    """The signature with those sizes; a symbol gets its size wherever it stands."""
    symbols = {
        dim: sizes[spec.name][axis]
        for spec in specs
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str) and axis in sizes.get(spec.name, {})
    }
    result = []
    for spec in specs:
        known = sizes.get(spec.name, {})
        shape = tuple(
            known.get(axis, symbols.get(dim, dim) if isinstance(dim, str) else dim)
            for axis, dim in enumerate(spec.shape)
        )
        result.append(InputSpec(spec.name, spec.element, shape, spec.is_tensor))
    return result


def _demands(node: ir.Node, place: int, rank: int) -> dict[int, int]:
    """Sizes that the axes of input number `place` of a node, of `rank` axes, must have."""
    kind = node.op_type
    if kind in _BROADCAST and len(node.inputs) == 2:
        other = _shape(node, 1 - place)
        return {
            rank - k: size for k, size in enumerate(reversed(other), 1) if size > 1 and k <= rank
        }
    if kind in _RECURRENT and rank == 3:
        weight, recurrence = _shape(node, 1), _shape(node, 2)
        if place == 0 and weight:
            return {2: weight[2]}
        if place in (5, 6) and recurrence:
            batch_first = _integer(node, "layout", 0)
            return {1 if batch_first else 0: recurrence[0], 2: recurrence[2]}
        return {}
    if kind in ("MatMul", "MatMulInteger") and place < 2:
        other = _shape(node, 1 - place)
        if len(other) < 2 or (place == 1 and rank < 2):
            return {}
        return {rank - 1: other[-2]} if place == 0 else {rank - 2: other[-1]}
    if place != 0:
        return {}
    weight = _shape(node, 1)
    if kind == "Gemm" and len(weight) == 2:
        return {1 - _integer(node, "transA", 0): weight[_integer(node, "transB", 0)]}
    if kind in ("Conv", "ConvInteger") and len(weight) == rank:
        return {1: weight[1] * _integer(node, "group", 1)}
    if kind == "ConvTranspose" and len(weight) == rank:
        return {1: weight[0]}
    if kind in _CHANNELS and len(weight) == 1 and rank > 1:
        return {1: weight[0]}
    if kind == "LayerNormalization" and weight:
        return _from_last(weight, rank)
    return {}


def _from_last(shape: Sequence[int], rank: int) -> dict[int, int]:
    """A shape by the axes of a value of `rank` axes whose last ones it is."""
    return {rank - k: size for k, size in enumerate(reversed(shape), 1) if k <= rank}


def _onward(node: ir.Node, place: int, axes: Axes) -> Axes | None:
    """The axes of a node's first output, None where they are lost."""
    kind, rank = node.op_type, len(axes)
    if kind in _BROADCAST:
        other = node.inputs[1 - place] if len(node.inputs) == 2 else None
        fits = other is not None and other.shape is not None and len(other.shape) <= rank
        return axes if fits else None
    if place != 0:
        return None
    if kind in _SAME_SHAPE or kind in _CHANNELS or kind == "LayerNormalization":
        return axes
    if kind in _POOLS:
        return axes[:2] + (None,) * (rank - 2)
    if kind == "Transpose":
        order = node.attributes.get("perm")
        moved = list(order.as_ints()) if order is not None else list(reversed(range(rank)))
        return tuple(axes[axis] for axis in moved) if len(moved) == rank else None
    if kind in ("Unsqueeze", "Squeeze"):
        given = _integers(node)
        if given is None:
            return None
        final = rank + len(given) if kind == "Unsqueeze" else rank
        places = {axis % final for axis in given if final}
        if kind == "Squeeze":
            return tuple(axis for at, axis in enumerate(axes) if at not in places)
        kept = iter(axes)
        return tuple(None if at in places else next(kept) for at in range(final))
    return None


def _integers(node: ir.Node) -> list[int] | None:
    """The constant `axes` of a node, an attribute before opset 13."""
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return list(attribute.as_ints())
    import onnx_ir as ir

    value = node.inputs[1] if len(node.inputs) > 1 else None
    given = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if given is None else [int(axis) for axis in given.numpy().reshape(-1)]


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _shape(node: ir.Node, place: int) -> tuple[int, ...]:
    """The shape of a weight, () where it is none or not known."""
    value = node.inputs[place] if 0 <= place < len(node.inputs) else None
    if value is None or value.shape is None or value.is_graph_input():
        return ()
    sizes = tuple(size for size in value.shape if isinstance(size, int) and size > 0)
    return sizes if len(sizes) == len(value.shape) else ()
