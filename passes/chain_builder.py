# SPDX-License-Identifier: Apache-2.0
"""Collects the nodes and initializers of decode chains, with short names, and puts them into a
graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir

from passes.lift_weights import values_of

Attributes = dict[str, int | Sequence[int]]

_DIGITS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_SHARED_BYTES = 1 << 12  # initializers up to this size are compared, and equal ones kept once


def short_names(taken: Iterable[str]) -> Iterator[str]:
    """Names in the order of their length: a … Z, aa … Z_, …; a digit never comes first."""
    used = set(taken)
    for number in count():
        name, rest = _DIGITS[number % 52], number // 52
        while rest:
            rest -= 1
            name += _DIGITS[rest % len(_DIGITS)]
            rest //= len(_DIGITS)
        if name not in used:
            yield name


class ChainBuilder:
    """Builds nodes in topological order and counts the bytes that each weight's part of them takes.

    Attributes:
        nodes: The nodes so far, in topological order; those of one owner need no other's but shared
            ones.
        initializers: The new initializers.
        bytes_of: Owner -> bytes of the nodes and initializers built while it was the ``owner``.
        owner: The weight that is being built, or "" for what several share.
    """

    def __init__(self, model: ir.Model) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.bytes_of: Counter[str] = Counter()
        self.owner = ""
        self.opset = model.opset_imports.get("", 13)
        self._node_owners: list[str] = []
        self._shared: dict[Hashable, ir.Value] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        taken = {v.name for graph in model.graphs() for v in values_of(graph) if v.name}
        self._names = short_names(taken)

    def initializer(self, array: np.ndarray) -> ir.Value:
        """An initializer with the data of ``array``; the same one for the same small data."""
        key = (
            array.dtype.name,
            array.shape,
            array.tobytes() if array.nbytes <= _SHARED_BYTES else b"",
        )
        if key[2] and key in self._known:
            return self._known[key]
        tensor = ir.Tensor(array)
        value = ir.Value(
            name=next(self._names),
            const_value=tensor,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
        )
        self._known[key] = value
        self.initializers.append(value)
        self.bytes_of[self.owner] += array.nbytes + 8 + len(value.name or "") + 2 * array.ndim
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: Attributes | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Appends a node with one output, which gets its name in ``insert`` unless it is named
        before."""
        output = ir.Value()
        attrs = [
            ir.AttrInt64(name, value)
            if isinstance(value, int)
            else ir.AttrInt64s(name, list(value))
            for name, value in (attributes or {}).items()
        ]
        self.nodes.append(ir.Node(domain, op_type, inputs, attrs, outputs=[output]))
        self._node_owners.append(self.owner)
        return output

    def shared(self, key: Hashable, make: Callable[[], ir.Value]) -> ir.Value:
        """The value that ``make`` builds when ``key`` is asked for first; several weights may read
        it, so its bytes are nobody's."""
        if key not in self._shared:
            owner, self.owner = self.owner, ""
            self._shared[key] = make()
            self.owner = owner
        return self._shared[key]

    def insert(self, graph: ir.Graph) -> None:
        """Registers the initializers and puts the nodes at the start of ``graph``: shared ones,
        then weight by weight."""
        order = {
            owner: place for place, owner in enumerate(dict.fromkeys(["", *self._node_owners]))
        }
        pairs = list(zip(self.nodes, self._node_owners, strict=True))
        pairs.sort(key=lambda pair: order[pair[1]])
        self.nodes, self._node_owners = [n for n, _ in pairs], [owner for _, owner in pairs]
        for value in self.initializers:
            graph.register_initializer(value)
        for node in self.nodes:
            if node.outputs[0].name is None:
                node.outputs[0].name = next(self._names)
        if len(graph):
            graph.insert_before(graph[0], self.nodes)
        else:
            graph.extend(self.nodes)
        for node, owner in zip(self.nodes, self._node_owners, strict=True):
            node.name = None  # the graph has just made one up, which would be written to the file
            size = ir.serde.serialize_node(node).ByteSize()
            self.bytes_of[owner] += size + (2 if size < 128 else 3)
