# SPDX-License-Identifier: Apache-2.0
"""Appends nodes of standard operators to a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

_PREFIX = "__gradient"


def _made(graph: ir.Graph) -> int:
    """How many values other tapes have made in a graph, or more."""
    names = [str(output.name) for node in graph for output in node.outputs]
    return sum(name.startswith(_PREFIX) for name in [*names, *graph.initializers])


class Tape:
    """Appends nodes to the end of a graph; every value that it makes has a name of its own."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph, self._count = graph, 0
        self._prefix = f"{_PREFIX}{_made(graph)}_"

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The output of a new node."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(
        self, kind: str, count: int, *inputs: ir.Value | None, **attributes: Any
    ) -> Sequence[ir.Value]:
        """All outputs of a new node."""
        given = [
            ir.convenience.convert_attribute(name, value) for name, value in attributes.items()
        ]
        return self._added(ir.Node("", kind, list(inputs), attributes=given, num_outputs=count))

    def _added(self, node: ir.Node) -> Sequence[ir.Value]:
        for output in node.outputs:
            output.name = self._name()
        self._graph.append(node)
        return tuple(node.outputs)

    def with_attributes(
        self, kind: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, ir.Attr]
    ) -> ir.Value:
        """The output of a new node with attributes of another one."""
        node = ir.Node("", kind, list(inputs), attributes=[*attributes.values()], num_outputs=1)
        return self._added(node)[0]

    def again(
        self, node: ir.Node, attributes: Mapping[str, ir.Attr], count: int
    ) -> Sequence[ir.Value]:
        """`count` outputs of a node once more, with other attributes."""
        copy = ir.Node(
            node.domain,
            node.op_type,
            list(node.inputs),
            attributes=[*attributes.values()],
            num_outputs=count,
        )
        return self._added(copy)

    def constant(self, value: Any, dtype: Any = np.int64) -> ir.Value:
        """A new initializer."""
        array = np.asarray(value, dtype)
        name = self._name()
        found = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.Tensor(array, name=name),
        )
        self._graph.register_initializer(found)
        return found

    def number(self, value: float) -> ir.Value:
        """A float32 scalar."""
        return self.constant(value, np.float32)

    def shape(self, value: ir.Value) -> ir.Value:
        """The dimensions of a value, int64."""
        return self.op("Shape", value)

    def reshaped(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """`value` in the shape of `like`."""
        return self.op("Reshape", value, self.shape(like))

    def summed_to(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """`value` summed up along the axes along which `like` was broadcast to its shape."""
        sizes, wanted = self.shape(value), self.shape(like)
        missing = self.op("Sub", self.shape(sizes), self.shape(wanted))
        ones = self.op("ConstantOfShape", missing, value=ir.tensor(np.ones(1, np.int64)))
        padded = self.op("Concat", ones, wanted, axis=0)
        alone = self.op("Equal", padded, self.constant(1))
        axes = self.op("Reshape", self.op("NonZero", alone), self.constant([-1]))
        total = self.op("ReduceSum", value, axes, keepdims=1, noop_with_empty_axes=1)
        return self.op("Reshape", total, wanted)

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"


Given = Sequence[ir.Value | None] | None
"""What each input of a node is handed back, None, like what is missing at the end, where that is
not known; None in place of all where nothing is."""
Rule = Callable[[Tape, ir.Node, ir.Value], Given]
"""Takes what the first output of a node is handed back."""
