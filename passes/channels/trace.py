# SPDX-License-Identifier: Apache-2.0
"""What is known about the channels of a model while its nodes are walked in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.channels.labels import CannotTraceError, ChannelLabels, Labels, Layout

Dims = tuple[int | None, ...]
"""Dimensions of a value; None where one is not known before a run."""


@dataclass(frozen=True, eq=False)
class ConstantUse:
    """Input ``index`` of ``node`` is a constant whose ``axis`` has channels."""

    node: ir.Node
    index: int
    axis: int
    labels: Labels

    @property
    def value(self) -> ir.Value:
        """The initializer."""
        return constant_input(self.node, self.index)


@dataclass(frozen=True, eq=False)
class LayerUse:
    """One side of a layer: a Conv, Gemm or MatMul whose weight, input ``index`` of ``node``, has
    these output channels (a producer) or input channels (a consumer) along ``axis``.

    A consumer's labels are those of the channels of its input, one for each of them; the weight of
    a grouped convolution has fewer along its axis.
    """

    node: ir.Node
    index: int
    axis: int
    labels: Labels

    @property
    def weight(self) -> ir.Value:
        """The initializer."""
        return constant_input(self.node, self.index)


@dataclass(frozen=True, eq=False)
class SizeEdit:
    """A number of channels that the graph itself holds: element ``position`` of the integers at
    input ``index`` of ``node``, or, where ``index`` is None, the attribute ``group``."""

    node: ir.Node
    index: int | None
    position: int
    labels: Labels


def constant_input(node: ir.Node, index: int) -> ir.Value:
    """Input ``index`` of ``node``, which is known to be there."""
    value = node.inputs[index]
    if value is None:
        raise CannotTraceError(f"{node.op_type} lacks input {index}")
    return value


class Trace:
    """The state of the walk: a layout per value, uses of constants, layers, and edits.

    ``opset`` is the version of the standard operators; ``graph`` the main graph.
    """

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self.graph, self.opset = graph, opset
        self.labels = ChannelLabels()
        self.layouts: dict[ir.Value, Layout] = {}
        self.constants: list[ConstantUse] = []
        self.producers: list[LayerUse] = []
        self.consumers: list[LayerUse] = []
        self.edits: list[SizeEdit] = []
        self._weights: dict[tuple[ir.Value, int], Labels] = {}

    def layout(self, node: ir.Node, index: int = 0) -> Layout | None:
        """The layout of an input, None where it is absent or has none."""
        value = node.inputs[index] if index < len(node.inputs) else None
        return self.layouts.get(value) if value is not None else None

    def give(self, value: ir.Value, axis: int, labels: Labels) -> None:
        """Gives a value its layout; a single channel can never go and gets none."""
        if labels.size > 1:
            self.layouts[value] = Layout(axis, labels)
        else:
            self.labels.block(labels, "its only channel")

    def block(self, layout: Layout | None, reason: str) -> None:
        """Blocks the channels of a layout, if there is one."""
        if layout is not None:
            self.labels.block(layout.labels, reason)

    def constant(self, node: ir.Node, index: int, axis: int, labels: Labels) -> None:
        """Says that ``axis`` of the constant at an input has channels.

        Raises:
            CannotTraceError: it is no constant, or has another number of positions.
        """
        value = constant_input(node, index)
        array = constant_of(value)
        if array is None:
            raise CannotTraceError(
                f"{describe(node)}: input {index} ({value.name}) is computed, not a constant"
            )
        if array.shape[axis] != labels.size:
            raise CannotTraceError(
                f"{describe(node)}: {value.name} has {array.shape[axis]} channels on axis {axis}, "
                f"its input {labels.size}"
            )
        self.constants.append(ConstantUse(node, index, axis, labels))

    def weight(self, node: ir.Node, index: int, axis: int, labels: Labels) -> None:
        """As ``constant``, for a layer's weight: layers that share one stay coupled."""
        self.constant(node, index, axis, labels)
        value = constant_input(node, index)
        known = self._weights.setdefault((value, axis), labels)
        if known is not labels:
            self.labels.join(known, labels)

    def edit(self, node: ir.Node, index: int | None, position: int, labels: Labels) -> None:
        """Notes a number of channels that the graph holds itself."""
        self.edits.append(SizeEdit(node, index, position, labels))


Rule = Callable[[Trace, ir.Node], None]
"""Gives the outputs of a node their layouts, or raises ``CannotTraceError``."""


def describe(node: ir.Node) -> str:
    """A node in words: its operator, and its name or else its output's."""
    name = node.name or next((o.name for o in node.outputs if o.name), "")
    return f"{node.op_type} {name!r}"


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The data of a constant, None for what is computed or can be given by the caller."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    if value.producer() is not None and not value.is_initializer():
        return None
    return np.asarray(value.const_value.numpy())


def integers_of(value: ir.Value | None) -> list[int] | None:
    """The elements of an integer constant, None where it is none."""
    array = constant_of(value)
    return None if array is None else [int(item) for item in array.reshape(-1)]


def dims_of(value: ir.Value) -> Dims | None:
    """The dimensions of a value, None where not even their number is known."""
    if value.const_value is not None:
        return tuple(int(d) for d in value.const_value.shape.numpy())
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def integers(node: ir.Node, name: str) -> list[int] | None:
    """A list attribute, None where it is absent."""
    attribute = node.attributes.get(name)
    return None if attribute is None else [int(item) for item in attribute.as_ints()]


def known_rank(value: ir.Value) -> int:
    """The number of dimensions. Raises ``CannotTraceError`` where it is unknown."""
    dims = dims_of(value)
    if dims is None:
        raise CannotTraceError(f"the shape of {value.name} is unknown")
    return len(dims)


def unused(values: Sequence[ir.Value]) -> bool:
    """Whether nothing uses any of ``values``."""
    return not any(value.uses() or value.is_graph_output() for value in values)
