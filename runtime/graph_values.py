# SPDX-License-Identifier: Apache-2.0
"""Names, scopes and constants of ONNX graphs, as the rewrites of a session need them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Set

import onnx

DOMAIN = "toolkit"

LIBRARY_OPS = frozenset(
    {
        "DecodeWide",
        "DecodeWide16",
        "DecodeTensor",
        "DecodeTensor16",
        "DecodeDequantize",
        "DecodeLookup",
        "DecodeAdaptive",
        "DecodeHuffman",
        "DecodeFixed",
        "JoinFloat",
        "JoinHalf",
        "TakeRange",
        "TakeTensor",
    }
)
"""The ops that the shared library registers."""

_RANDOM_OPS = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_PURE_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft", DOMAIN})


@dataclasses.dataclass
class Scope:
    """One graph and what it knows: constants by name, and the node that makes each value.

    Attributes:
        graph: the graph.
        parent: the scope of the graph that encloses it, or None.
        constants: names of constant values made here: initializers and outputs of pure nodes.
        decoded: the constants among them that have an op of the toolkit upstream.
        producers: the node of each value made by a node here.
        inner: the scopes of the graphs in this graph's nodes, by the index of the node.
        own: the names of all values made here.
    """

    graph: onnx.GraphProto
    parent: Scope | None
    constants: set[str] = dataclasses.field(default_factory=set)
    decoded: set[str] = dataclasses.field(default_factory=set)
    producers: dict[str, onnx.NodeProto] = dataclasses.field(default_factory=dict)
    inner: dict[int, list[Scope]] = dataclasses.field(default_factory=dict)
    own: set[str] = dataclasses.field(default_factory=set)

    def home(self, name: str) -> Scope | None:
        """Return the scope that makes the value, this one or an enclosing one."""
        scope: Scope | None = self
        while scope is not None and name not in scope.own:
            scope = scope.parent
        return scope

    def is_constant(self, name: str) -> bool:
        """Tell whether the value is the same in every run."""
        home = self.home(name)
        return home is not None and name in home.constants

    def is_decoded(self, name: str) -> bool:
        """Tell whether the value is constant and comes out of an op of the toolkit."""
        home = self.home(name)
        return home is not None and name in home.decoded

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes the value, or None."""
        home = self.home(name)
        return home.producers.get(name) if home is not None else None

    def initializer(self, name: str) -> onnx.TensorProto | None:
        """Return the dense initializer that is the constant value, or None."""
        home = self.home(name)
        if home is None or name not in home.constants or name in home.producers:
            return None
        return next((tensor for tensor in home.graph.initializer if tensor.name == name), None)

    def walk(self) -> Iterator[Scope]:
        """Yield this scope and all scopes inside it."""
        yield self
        for scopes in self.inner.values():
            for scope in scopes:
                yield from scope.walk()


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def is_toolkit_node(node: onnx.NodeProto) -> bool:
    """Tell whether the node is one of the library's ops."""
    return node.domain == DOMAIN and node.op_type in LIBRARY_OPS


def scan(
    graph: onnx.GraphProto,
    overridable: bool,
    blocked: Set[str] = frozenset(),
    parent: Scope | None = None,
) -> Scope:
    """Find the constants of a graph and of all graphs inside it.

    Args:
        graph: a graph whose nodes are in topological order.
        overridable: whether an initializer that is also a graph input may be overridden by the
            caller (ONNX: from IR version 4 on), so that it is no constant.
        blocked: values that count as changing although they are constant.
        parent: the scope around it.
    """
    scope = Scope(graph, parent)
    inputs = {value.name for value in graph.input}
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {tensor.values.name for tensor in graph.sparse_initializer}
    scope.own = inputs | stored
    scope.constants = stored - inputs if overridable else set(stored)
    for index, node in enumerate(graph.node):
        outputs = [name for name in node.output if name]
        scope.own.update(outputs)
        scope.producers.update(dict.fromkeys(outputs, node))
        graphs = list(graphs_of(node))
        if graphs:
            scope.inner[index] = [scan(inner, overridable, blocked, scope) for inner in graphs]
        elif _is_pure(scope, node) and blocked.isdisjoint(outputs):
            scope.constants.update(outputs)
            if is_toolkit_node(node) or any(scope.is_decoded(name) for name in node.input if name):
                scope.decoded.update(outputs)
    return scope


def _is_pure(scope: Scope, node: onnx.NodeProto) -> bool:
    if node.domain not in _PURE_DOMAINS or node.op_type in _RANDOM_OPS:
        return False
    if node.op_type == "Constant":
        return True
    names = [name for name in node.input if name]
    return bool(names) and all(scope.is_constant(name) for name in names)


def count_uses(graph: onnx.GraphProto) -> Counter[str]:
    """Count how often each name is read by nodes here or inside, or is an output."""
    uses = Counter(value.name for value in graph.output)
    for node in graph.node:
        uses.update(node.input)
        for inner in graphs_of(node):
            uses.update(count_uses(inner))
    return uses


def drop_unused(graph: onnx.GraphProto, uses: Counter[str] | None = None) -> None:
    """Remove nodes and constants that nothing reads, in inner graphs too.

    Args:
        graph: the graph to change; its nodes are in topological order.
        uses: reads of every name in the outermost graph; None for the outermost graph itself.
    """
    if uses is None:
        uses = count_uses(graph)
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        inner_graphs = list(graphs_of(node))
        for inner in inner_graphs:
            drop_unused(inner, uses)
        removable = node.domain in _PURE_DOMAINS and not inner_graphs
        if removable and not any(uses[name] for name in node.output):
            uses.subtract(node.input)
            del graph.node[index]
    inputs = {value.name for value in graph.input}
    for tensors in (graph.initializer, graph.sparse_initializer):
        for index in range(len(tensors) - 1, -1, -1):
            tensor = tensors[index]
            name = tensor.name if isinstance(tensor, onnx.TensorProto) else tensor.values.name
            if not uses[name] and name not in inputs:
                del tensors[index]
