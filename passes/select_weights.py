# SPDX-License-Identifier: Apache-2.0
"""Finds the weights of a model that are worth compressing, and how they lie in memory.

Followed: every initializer of the main graph into the operators that use it, also from inside of
If, Loop and Scan bodies and of model-local functions that it is passed to, and through Identity,
Cast, Transpose, Reshape, Flatten, Squeeze, Unsqueeze, QuantizeLinear and DequantizeLinear. Run
LiftWeights first: it brings weights of subgraphs, Constant nodes and functions to the main graph.

Left alone: graph inputs and outputs, scalars, values that steer an operator (scales of Resize,
bounds of Clip, scales of quantisers), 4-bit and wider integers, float64, and strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir

from passes.operator_inputs import (
    CONVOLUTIONS,
    PASS_THROUGH,
    RECURRENT,
    STEERED,
    channel_axis_of,
    is_weight_input,
)

Role = Literal["weight", "embedding", "recurrent", "minor", "integer"]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8)
# A float tensor that no listed operator multiplies with counts as a weight from this size on.
_LARGE = 4096
_MIN_ROWS = 32
_FOLD = 64
_MAX_ROW = 32768  # symbols


@dataclass(frozen=True, eq=False)
class Weight:
    """An initializer of the main graph that can be compressed.

    Attributes:
        name: Its name, which the compressed model keeps.
        value: The initializer.
        shape: Its dimensions.
        dtype: FLOAT, FLOAT16, BFLOAT16, INT8 or UINT8.
        role: What it is; ``minor`` are biases, norm parameters and other small float tensors.
        op_types: The operators that use it, in the order met.
        nodes: The names of these nodes, as far as they have any.
        channel_axis: The axis of output channels (rows for an embedding), where known.
        permutation: The Transpose between this weight and the convolution that uses it, if there is
            one.
        is_convolution: Whether its layout (after ``permutation``) is channels, channels, taps.
    """

    name: str
    value: ir.Value
    shape: tuple[int, ...]
    dtype: ir.DataType
    role: Role
    op_types: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    channel_axis: int | None = None
    permutation: tuple[int, ...] | None = None
    is_convolution: bool = False

    @property
    def num_elements(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's data, uncompressed."""
        return int(self.num_elements * self.dtype.itemsize)

    def array(self) -> np.ndarray:
        """The weight's data in its own type (bfloat16 as ml_dtypes.bfloat16); may be a view of the
        file."""
        if self.value.const_value is None:
            raise ValueError(f"{self.name}: the initializer has no data any more")
        return np.asarray(self.value.const_value.numpy())


@dataclass(frozen=True)
class _Use:
    """An operator that a weight reaches, and what happened to its axes on the way."""

    node: ir.Node
    index: int
    axes: tuple[int, ...] | None  # axis of the weight behind each axis here; None after a reshape
    is_direct: bool


def select_weights(model: ir.Model) -> list[Weight]:
    """All weights of the main graph, in the graph's order; a shared one is listed once."""
    found = []
    for value in model.graph.initializers.values():
        weight = _weight_of(model, value)
        if weight is not None:
            found.append(weight)
    return found


def coder_view(weight: Weight) -> tuple[tuple[int, ...] | None, tuple[int, int, int]]:
    """How the coder sees the weight's symbols: a permutation of its axes (or None), then three
    dimensions.

    Neighbours along the last dimension C are those that resemble each other: the taps of a
    convolution, else the last axis. A·B is at least 32 where the size allows. Vectors are folded to
    rows of 64, so A·B·C
    can exceed the number of elements: the symbols are padded with zeros at the end.
    """
    permutation = weight.permutation
    shape = weight.shape if permutation is None else tuple(weight.shape[p] for p in permutation)
    size = prod(shape)
    if len(shape) < 2 or size <= max(shape):
        return None, folded_view(size)
    if weight.is_convolution and len(shape) > 2:
        taps = prod(shape[2:])
        view = (shape[0], shape[1], taps) if taps > 1 else (1, shape[0], shape[1])
    elif weight.role == "recurrent" and len(shape) == 3:
        view = (shape[0], shape[1], shape[2])
    elif len(shape) == 2:
        view = (1, shape[0], shape[1])
    else:
        view = (prod(shape[:-2]), shape[-2], shape[-1])
    rows, length = view[0] * view[1], view[2]
    if rows < _MIN_ROWS and length > _MIN_ROWS:
        chunks = range(-(-_MIN_ROWS // rows), length // 8 + 1)
        number = next((n for n in chunks if length % n == 0), 1)
        if number > 1:
            view = (rows, number, length // number)
    return permutation, bounded_view(view)


def bounded_view(view: tuple[int, int, int]) -> tuple[int, int, int]:
    """The view with its rows divided where they are too long for a segment (FORMAT.md 2.8)."""
    a, b, length = view
    if length <= _MAX_ROW:
        return view
    parts = range(-(-length // _MAX_ROW), length // _FOLD + 1)
    number = next((n for n in parts if length % n == 0), None)
    return folded_view(prod(view)) if number is None else (a * b, number, length // number)


def folded_view(size: int) -> tuple[int, int, int]:
    """The view of a vector: rows of 64, the last one padded; one row where it is shorter."""
    return (1, -(-size // _FOLD), _FOLD) if size > _FOLD else (1, 1, max(size, 1))


def _weight_of(model: ir.Model, value: ir.Value) -> Weight | None:
    tensor = value.const_value
    if tensor is None or value.name is None or value.is_graph_input() or value.is_graph_output():
        return None
    shape = tuple(tensor.shape.numpy())
    uses = list(_uses(model, value, tuple(range(len(shape))), True, frozenset()))
    op_types = tuple(dict.fromkeys(use.node.op_type for use in uses))
    nodes = tuple(dict.fromkeys(use.node.name for use in uses if use.node.name))
    if tensor.dtype not in (*FLOATS, *INTEGERS) or prod(shape) < 2 or not shape or not uses:
        return None
    if any(use.index in STEERED.get(use.node.op_type, ()) for use in uses):
        return None
    weighing = [use for use in uses if is_weight_input(use.node, use.index)]
    if tensor.dtype in INTEGERS:
        if not weighing:
            return None
        return Weight(
            value.name, value, shape, tensor.dtype, "integer", op_types, nodes, _channel(weighing)
        )
    if not weighing or len(shape) < 2:
        large = prod(shape) >= _LARGE and len(shape) >= 2
        return Weight(
            value.name, value, shape, tensor.dtype, "weight" if large else "minor", op_types, nodes
        )
    role: Role = "weight"
    kinds = {use.node.op_type for use in weighing}
    if kinds & RECURRENT:
        role = "recurrent"
    elif not any(not kind.startswith(("Gather", "EmbedLayer")) for kind in kinds):
        role = "embedding"
    convolution = next((u for u in weighing if u.node.op_type in CONVOLUTIONS and u.axes), None)
    permutation = None
    if convolution is not None and convolution.axes != tuple(range(len(shape))):
        permutation = convolution.axes
    return Weight(
        name=value.name,
        value=value,
        shape=shape,
        dtype=tensor.dtype,
        role=role,
        op_types=op_types,
        nodes=nodes,
        channel_axis=_channel(weighing),
        permutation=permutation,
        is_convolution=convolution is not None,
    )


def _channel(uses: list[_Use]) -> int | None:
    """The channel axis in the weight's own axes that the first use with a known one asks for."""
    for use in uses:
        if use.axes is None:
            continue
        axis = channel_axis_of(use.node, use.index, len(use.axes))
        if axis is not None and -len(use.axes) <= axis < len(use.axes):
            return use.axes[axis]
    return None


def _uses(
    model: ir.Model,
    value: ir.Value,
    axes: tuple[int, ...] | None,
    is_direct: bool,
    inside: frozenset[ir.OperatorIdentifier],
) -> Iterator[_Use]:
    """The operators that ``value`` reaches, through pass-through operators and function calls."""
    for node, index in value.uses():
        function = model.functions.get(node.op_identifier())
        if function is not None and function.identifier() not in inside:
            if index < len(function.inputs):
                inner = inside | {function.identifier()}
                yield from _uses(model, function.inputs[index], axes, is_direct, inner)
            continue
        if node.op_type in PASS_THROUGH and index == 0 and node.domain in ("", "ai.onnx"):
            reaches = list(_uses(model, node.outputs[0], _moved(node, axes), False, inside))
            yield from reaches or [_Use(node, index, axes, is_direct)]
            continue
        yield _Use(node, index, axes, is_direct)


def _moved(node: ir.Node, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """``axes`` behind a pass-through operator."""
    if axes is None or node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return None
    if node.op_type != "Transpose":
        return axes
    order = node.attributes.get("perm")
    if order is None:
        return axes[::-1]
    if order.is_ref():
        return None
    return tuple(axes[p] for p in order.as_ints())
