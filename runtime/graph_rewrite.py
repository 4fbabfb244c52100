# SPDX-License-Identifier: Apache-2.0
"""Load mode: cut the decoding of weights out of a model, so that it runs once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import onnx
import onnx.inliner

from runtime.errors import ModelError
from runtime.graph_values import (
    DOMAIN,
    LIBRARY_OPS,
    Scope,
    drop_unused,
    graphs_of,
    is_toolkit_node,
    scan,
)


@dataclasses.dataclass
class Cut:
    """A model in two parts.

    Attributes:
        decoder: a model without inputs whose outputs are the decoded weights.
        rest: the model without its decoding; it lacks the initializers `weights`.
        weights: names of the decoder's outputs, the same as in the rest.
    """

    decoder: onnx.ModelProto
    rest: onnx.ModelProto
    weights: list[str]


def has_toolkit_nodes(graph: onnx.GraphProto) -> bool:
    """Tell whether an op of the library stands in the graph or in a graph inside it."""
    return any(
        is_toolkit_node(node) or any(has_toolkit_nodes(inner) for inner in graphs_of(node))
        for node in graph.node
    )


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every toolkit op in its graphs, and no function body of such an op.

    Function bodies of the library's ops are dropped: the library has their kernels. Other
    model-local functions that contain toolkit ops are inlined, so that their weights can be seen.
    """
    kept = [
        function
        for function in model.functions
        if function.domain != DOMAIN or function.name not in LIBRARY_OPS
    ]
    if len(kept) != len(model.functions):
        del model.functions[:]
        model.functions.extend(kept)
    carriers: set[tuple[str, str]] = set()
    while True:  # a function that calls a carrier is a carrier too
        more = {
            (function.domain, function.name)
            for function in kept
            if any(_carries(node, carriers) for node in function.node)
        }
        if more == carriers:
            break
        carriers = more
    if carriers:
        model = onnx.inliner.inline_selected_functions(model, sorted(carriers))
    return model


def _carries(node: onnx.NodeProto, carriers: set[tuple[str, str]]) -> bool:
    if is_toolkit_node(node) or (node.domain, node.op_type) in carriers:
        return True
    return any(_carries(inner, carriers) for graph in graphs_of(node) for inner in graph.node)


def cut(model: onnx.ModelProto) -> Cut | None:
    """Cut out what depends on constants only and has a toolkit op upstream.

    A DequantizeLinear stays where the node that reads it also reads dequantised activations:
    there it belongs to an integer computation that ONNX Runtime fuses, and its integer weight is
    what the decoder hands over.

    Args:
        model: a prepared model; it becomes the rest.

    Returns:
        The parts, or None where there is nothing to decode.
    """
    overridable = model.ir_version >= 4
    root = scan(model.graph, overridable)
    blocked = {name for scope in root.walk() for name in _integer_weights(scope)}
    if blocked:
        root = scan(model.graph, overridable, blocked)
    decoder = _Decoder(root)
    additions = [(scope, decoder.take_weights(scope)) for scope in root.walk()]
    if not decoder.weights:
        return None
    for scope, nodes in additions:
        _remove_decoded(scope)
        scope.graph.node.extend(nodes)
    drop_unused(model.graph)
    part = onnx.ModelProto(ir_version=model.ir_version, graph=decoder.graph)
    part.opset_import.extend(model.opset_import)
    if not has_toolkit_nodes(model.graph):
        for index in range(len(model.opset_import) - 1, -1, -1):
            if model.opset_import[index].domain == DOMAIN:
                del model.opset_import[index]
    return Cut(part, model, list(decoder.weights))


def _integer_weights(scope: Scope) -> list[str]:
    """Return the outputs of the DequantizeLinear nodes that stay."""

    def is_dequantised(name: str, constant: bool) -> bool:
        producer = scope.producer(name)
        return (
            producer is not None
            and producer.op_type == "DequantizeLinear"
            and (scope.is_decoded(name) if constant else not scope.is_constant(name))
        )

    return [
        name
        for node in scope.graph.node
        if any(is_dequantised(name, constant=False) for name in node.input)
        for name in node.input
        if is_dequantised(name, constant=True)
    ]


class _Decoder:
    """The decoder's graph in the making, and the names that its values get."""

    def __init__(self, root: Scope) -> None:
        self.graph = onnx.GraphProto(name="decoder")
        self.weights: dict[str, None] = {}  # a set that keeps its order
        self._root = root
        self._root_outputs = {output.name for output in root.graph.output}
        self._taken = {name for scope in root.walk() for name in scope.own}
        self._names: dict[tuple[int, str], str] = {}
        self._stored = {
            id(scope): {_name_of(t): t for t in _stored_tensors(scope.graph)}
            for scope in root.walk()
        }

    def take_weights(self, scope: Scope) -> list[onnx.NodeProto]:
        """Make the decoded values that the rest of a scope reads outputs of the decoder.

        The nodes that read them are changed to read the weight. Returned are the nodes that the
        scope needs in addition: a graph's output must be made by a node of it.
        """
        for node in scope.graph.node:
            if scope.decoded.isdisjoint(node.output):
                for index, name in enumerate(node.input):
                    if name and scope.is_decoded(name):
                        node.input[index] = self._weight(scope, name)
        return [
            onnx.NodeProto(
                op_type="Identity", input=[self._weight(scope, output.name)], output=[output.name]
            )
            for output in scope.graph.output
            if output.name in scope.decoded
        ]

    def _weight(self, scope: Scope, name: str) -> str:
        weight = self._emit(scope, name)
        if weight not in self.weights:
            self.weights[weight] = None
            self.graph.output.add(name=weight)
        return weight

    def _emit(self, scope: Scope, name: str) -> str:
        """Copy what makes a constant value into the decoder's graph; return its name there."""
        home = scope.home(name)
        if home is None:
            raise ModelError(f"value '{name}' is read, but nothing makes it")
        key = (id(home), name)
        if key in self._names:
            return self._names[key]
        tensor = self._stored[id(home)].get(name)
        if tensor is not None:
            new_name = self._name(home, name)
            copied = type(tensor)()
            copied.CopyFrom(tensor)
            if isinstance(copied, onnx.TensorProto):
                copied.name = new_name
                self.graph.initializer.append(copied)
            else:
                copied.values.name = new_name
                self.graph.sparse_initializer.append(copied)
            return new_name
        node = home.producers[name]
        inputs = [self._emit(home, source) if source else "" for source in node.input]
        made = self.graph.node.add()
        made.CopyFrom(node)
        made.input[:] = inputs
        made.output[:] = [self._name(home, output) if output else "" for output in node.output]
        made.name = node.name or made.output[0]  # what an error will name
        return self._names[key]

    def _name(self, home: Scope, name: str) -> str:
        """Choose the name of a value: its own, unless another graph or an output has that."""
        candidate, count = name, 0
        if home is not self._root or name in self._root_outputs:
            while candidate in self._taken:
                count += 1
                candidate = f"{name}_{count}"
            self._taken.add(candidate)
        self._names[id(home), name] = candidate
        return candidate


def _stored_tensors(
    graph: onnx.GraphProto,
) -> Iterator[onnx.TensorProto | onnx.SparseTensorProto]:
    yield from graph.initializer
    yield from graph.sparse_initializer


def _name_of(tensor: onnx.TensorProto | onnx.SparseTensorProto) -> str:
    return tensor.name if isinstance(tensor, onnx.TensorProto) else tensor.values.name


def _remove_decoded(scope: Scope) -> None:
    """Remove the nodes that the decoder runs, and what is said about their values."""
    for items, names_of in (
        (scope.graph.node, lambda node: node.output),
        (scope.graph.value_info, lambda info: (info.name,)),
    ):
        for index in range(len(items) - 1, -1, -1):
            if not scope.decoded.isdisjoint(names_of(items[index])):
                del items[index]
