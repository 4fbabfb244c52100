# SPDX-License-Identifier: Apache-2.0
"""Names, scopes and constants of ONNX graphs, as the rewrites of a session need them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Set
from typing import Any

import onnx
from onnx import helper

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
        "MatMulPacked",
        "MatMulPackedCodebook",
        "ConvPacked",
        "ConvPackedCodebook",
        "DecodeMatMul",
        "DecodeMatMulLookup",
        "DecodeLeftMatMul",
        "DecodeLeftMatMulLookup",
        "DecodeGemm",
        "DecodeGemmLookup",
        "DecodeConv",
        "DecodeConvLookup",
    }
)
"""The ops that the shared library registers."""

LIBRARY_FUNCTIONS = LIBRARY_OPS | {"WideHead", "WideTensor"}
"""The functions of a model that nobody calls where the library runs its ops: their bodies, and what
only these call."""

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


Stored = onnx.TensorProto | onnx.SparseTensorProto
"""An initializer of either kind."""


@dataclasses.dataclass(slots=True)
class Node:
    """What the rewrites ask of a node, read once: a field of a proto is slow to read.

    Attributes:
        proto: the node in its graph.
        graphs: the graphs in its attributes.
    """

    proto: onnx.NodeProto
    op_type: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    graphs: list[onnx.GraphProto]

    @classmethod
    def of(cls, proto: onnx.NodeProto) -> Node:
        """Read a node."""
        inputs, outputs = list(proto.input), list(proto.output)
        return cls(proto, proto.op_type, proto.domain, inputs, outputs, list(graphs_of(proto)))

    @property
    def label(self) -> str:
        """The name by which an error calls the node."""
        return self.proto.name or self.outputs[0]

    def attributes(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return {item.name: _value_of(item) for item in self.proto.attribute}


def _value_of(attribute: onnx.AttributeProto) -> Any:
    if attribute.type == onnx.AttributeProto.INT:
        return attribute.i
    if attribute.type == onnx.AttributeProto.INTS:
        return list(attribute.ints)
    return helper.get_attribute_value(attribute)


@dataclasses.dataclass
class Scope:
    """One graph and what it knows: constants by name, and the node that makes each value.

    Attributes:
        graph: the graph.
        parent: the scope of the graph that encloses it, or None.
        owner: the node of that graph that has this one in an attribute, or None.
        nodes: the nodes of the graph, in its order.
        stored: the initializers by name.
        constants: names of constant values made here: initializers and outputs of pure nodes.
        decoded: the constants among them that have an op of the toolkit upstream.
        producers: the node of each value made by a node here.
        inner: the scopes of the graphs in this graph's nodes.
        own: the names of all values made here.
    """

    graph: onnx.GraphProto
    parent: Scope | None
    owner: Node | None = None
    nodes: list[Node] = dataclasses.field(default_factory=list)
    stored: dict[str, Stored] = dataclasses.field(default_factory=dict)
    constants: set[str] = dataclasses.field(default_factory=set)
    decoded: set[str] = dataclasses.field(default_factory=set)
    producers: dict[str, Node] = dataclasses.field(default_factory=dict)
    inner: list[Scope] = dataclasses.field(default_factory=list)
    own: set[str] = dataclasses.field(default_factory=set)

    def home(self, name: str) -> Scope | None:
        """Return the scope that makes the value, this one or an enclosing one."""
        scope: Scope | None = self
        while scope is not None and name not in scope.own:
            scope = scope.parent
        return scope

    def is_constant(self, name: str) -> bool:
        """Tell whether the value is the same in every run."""
        if name in self.constants:
            return True
        return name not in self.own and self.parent is not None and self.parent.is_constant(name)

    def is_decoded(self, name: str) -> bool:
        """Tell whether the value is constant and comes out of an op of the toolkit."""
        if name in self.decoded:
            return True
        return name not in self.own and self.parent is not None and self.parent.is_decoded(name)

    def producer(self, name: str) -> Node | None:
        """Return the node that makes the value, or None."""
        home = self.home(name)
        return home.producers.get(name) if home is not None else None

    def initializer(self, name: str) -> onnx.TensorProto | None:
        """Return the dense initializer that is the constant value, or None."""
        home = self.home(name)
        if home is None or name not in home.constants:
            return None
        tensor = home.stored.get(name)
        return tensor if isinstance(tensor, onnx.TensorProto) else None

    def walk(self) -> Iterator[Scope]:
        """Yield this scope and all scopes inside it."""
        yield self
        for scope in self.inner:
            yield from scope.walk()


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes."""
    for attribute in node.attribute:
        kind = attribute.type
        if kind == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif kind == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def is_toolkit_node(node: onnx.NodeProto | Node) -> bool:
    """Tell whether the node is one of the library's ops."""
    return node.domain == DOMAIN and node.op_type in LIBRARY_OPS


def name_of(tensor: Stored) -> str:
    """Return the name of an initializer."""
    return tensor.name if isinstance(tensor, onnx.TensorProto) else tensor.values.name


def scan(
    graph: onnx.GraphProto,
    overridable: bool,
    blocked: Set[str] = frozenset(),
    parent: Scope | None = None,
    owner: Node | None = None,
) -> Scope:
    """Find the constants of a graph and of all graphs inside it.

    Args:
        graph: a graph whose nodes are in topological order.
        overridable: whether an initializer that is also a graph input may be overridden by the
            caller (ONNX: from IR version 4 on), so that it is no constant.
        blocked: values that count as changing although they are constant.
        parent: the scope around it.
        owner: the node there that has the graph.
    """
    scope = Scope(graph, parent, owner)
    inputs = {value.name for value in graph.input}
    for tensors in (graph.initializer, graph.sparse_initializer):
        scope.stored.update((name_of(tensor), tensor) for tensor in tensors)
    scope.own = inputs | scope.stored.keys()
    scope.constants = scope.stored.keys() - inputs if overridable else set(scope.stored)
    for proto in graph.node:
        node = Node.of(proto)
        scope.nodes.append(node)
        outputs = [name for name in node.outputs if name]
        scope.own.update(outputs)
        for name in outputs:
            scope.producers[name] = node
        if node.graphs:
            scope.inner += [scan(inner, overridable, blocked, scope, node) for inner in node.graphs]
        elif _is_pure(scope, node) and blocked.isdisjoint(outputs):
            scope.constants.update(outputs)
            if is_toolkit_node(node) or any(scope.is_decoded(name) for name in node.inputs if name):
                scope.decoded.update(outputs)
    return scope


def _is_pure(scope: Scope, node: Node) -> bool:
    if node.domain not in _PURE_DOMAINS or node.op_type in _RANDOM_OPS:
        return False
    if node.op_type == "Constant":
        return True
    empty = True
    for name in node.inputs:
        if name:
            if not scope.is_constant(name):
                return False
            empty = False
    return not empty


def count_uses(scope: Scope) -> Counter[str]:
    """Count how often each name is read by nodes here or inside, or is an output."""
    uses: Counter[str] = Counter()
    for each in scope.walk():
        uses.update(value.name for value in each.graph.output)
        uses.update(name for node in each.nodes for name in node.inputs)
    return uses


def drop_unused(root: Scope) -> None:
    """Remove nodes and constants that nothing reads, in inner graphs too.

    Args:
        root: the outermost graph, its nodes in topological order.
    """
    _drop_unused(root, count_uses(root))


def _drop_unused(scope: Scope, uses: Counter[str]) -> None:
    inner = iter(reversed(scope.inner))  # the nodes are walked backwards, and so are their graphs
    unused = set()
    for index in range(len(scope.nodes) - 1, -1, -1):
        node = scope.nodes[index]
        for _ in node.graphs:
            _drop_unused(next(inner), uses)
        removable = node.domain in _PURE_DOMAINS and not node.graphs
        if removable and not any(map(uses.get, node.outputs)):
            uses.subtract(node.inputs)
            unused.add(index)
    remove_nodes(scope, unused)
    inputs = {value.name for value in scope.graph.input}
    for tensors in (scope.graph.initializer, scope.graph.sparse_initializer):
        names = [name_of(tensor) for tensor in tensors]
        remove_items(
            tensors, {i for i, name in enumerate(names) if not (uses.get(name) or name in inputs)}
        )


def remove_nodes(scope: Scope, indices: Set[int]) -> None:
    """Remove nodes by their index from the graph of a scope, and from the scope's list."""
    if indices:
        remove_items(scope.graph.node, indices)
        scope.nodes = [node for index, node in enumerate(scope.nodes) if index not in indices]


def remove_items(items: Any, indices: Set[int]) -> None:
    """Remove items by their index from a repeated field, neighbours at once."""
    ends = sorted((index for index in indices if index + 1 not in indices), reverse=True)
    starts = sorted((index for index in indices if index - 1 not in indices), reverse=True)
    for start, end in zip(starts, ends, strict=True):
        del items[start : end + 1]
