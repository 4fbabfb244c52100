# SPDX-License-Identifier: Apache-2.0
"""Load mode: cut the decoding of weights out of a model, so that it runs once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from runtime.errors import ModelError
from runtime.graph_values import (
    DOMAIN,
    LIBRARY_FUNCTIONS,
    Node,
    Scope,
    drop_unused,
    graphs_of,
    is_toolkit_node,
    remove_items,
    remove_nodes,
    scan,
)

Source = tuple[Scope, str]
"""Where a value is made: the scope, and the name of the value there."""


class Cut:
    """A model in two parts.

    Attributes:
        rest: the model without its decoding; it lacks the initializers `weights`.
        weights: names of the initializers that the rest lacks, and the values that they are.
    """

    def __init__(self, rest: onnx.ModelProto, names: _Names, weights: Mapping[str, Source]) -> None:
        self.rest = rest
        self.weights = weights
        self._names = names
        self._head = onnx.ModelProto(ir_version=rest.ir_version)
        self._head.opset_import.extend(rest.opset_import)

    def decoder(self, weights: Iterable[str] | None = None) -> onnx.ModelProto:
        """Return a model without inputs whose outputs are the weights so named; None for all."""
        decoder = onnx.ModelProto()
        decoder.CopyFrom(self._head)
        writer = _DecoderWriter(decoder.graph, self._names)
        for weight in self.weights if weights is None else weights:
            writer.emit(*self.weights[weight])
            decoder.graph.output.add(name=weight)
        return decoder


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every toolkit op in its graphs, and no function body of such an op.

    Function bodies of the library's ops are dropped: the library has their kernels. Other
    model-local functions that contain toolkit ops are inlined, so that their weights can be seen.
    """
    kept = [
        function
        for function in model.functions
        if function.domain != DOMAIN or function.name not in LIBRARY_FUNCTIONS
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
        import onnx.inliner

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
    blocked = _integer_weights(root)
    if blocked:
        root = scan(model.graph, overridable, blocked)
    names = _Names(root)
    weights: dict[str, Source] = {}
    additions = [(scope, _take_weights(scope, names, weights)) for scope in root.walk()]
    if not weights:
        return None
    parts = Cut(model, names, weights)
    for scope, nodes in additions:
        _remove_decoded(scope)
        scope.graph.node.extend(nodes)
        scope.nodes += [Node.of(node) for node in nodes]
    drop_unused(root)
    if not any(is_toolkit_node(node) for scope in root.walk() for node in scope.nodes):
        imports = [entry.domain for entry in model.opset_import]
        remove_items(model.opset_import, {i for i, name in enumerate(imports) if name == DOMAIN})
    return parts


def _integer_weights(root: Scope) -> set[str]:
    """Return the outputs of the DequantizeLinear nodes that stay."""
    dequantised = [
        (scope, node.outputs[0])
        for scope in root.walk()
        for node in scope.nodes
        if node.op_type == "DequantizeLinear"
    ]
    weights = {name for scope, name in dequantised if scope.is_decoded(name)}
    activations = {name for scope, name in dequantised if not scope.is_constant(name)}
    if not activations:
        return set()
    return {
        name
        for scope in root.walk()
        for node in scope.nodes
        if not activations.isdisjoint(node.inputs)
        for name in node.inputs
        if name in weights
    }


def _take_weights(scope: Scope, names: _Names, weights: dict[str, Source]) -> list[onnx.NodeProto]:
    """Make the decoded values that the rest of a scope reads weights.

    The nodes that read them are changed to read the weight. Returned are the nodes that the
    scope needs in addition: a graph's output must be made by a node of it.

    Args:
        scope: the scope.
        names: the names of the decoder's values.
        weights: the weights so far; those of the scope are added.
    """

    def weight(name: str) -> str:
        home = scope.home(name)
        if home is None:
            raise ModelError(f"value '{name}' is read, but nothing makes it")
        new_name = names.of(home, name)
        weights[new_name] = home, name
        return new_name

    for node in scope.nodes:
        if scope.decoded.isdisjoint(node.outputs):
            for index, name in enumerate(node.inputs):
                if name and scope.is_decoded(name):
                    node.inputs[index] = weight(name)
                    if node.inputs[index] != name:
                        node.proto.input[index] = node.inputs[index]
    return [
        onnx.NodeProto(op_type="Identity", input=[weight(output.name)], output=[output.name])
        for output in scope.graph.output
        if output.name in scope.decoded
    ]


class _Names:
    """The names that values get in the decoder: their own, unless another graph or an output of
    the model has that."""

    def __init__(self, root: Scope) -> None:
        self._root = root
        self._root_outputs = {output.name for output in root.graph.output}
        self._taken = {name for scope in root.walk() for name in scope.own}
        self._names: dict[tuple[int, str], str] = {}

    def of(self, home: Scope, name: str) -> str:
        """Return the name of a value, always the same for the same value."""
        key = id(home), name
        if key in self._names:
            return self._names[key]
        candidate, count = name, 0
        if home is not self._root or name in self._root_outputs:
            while candidate in self._taken:
                count += 1
                candidate = f"{name}_{count}"
            self._taken.add(candidate)
        self._names[key] = candidate
        return candidate


class _DecoderWriter:
    """Copies what makes constant values into the graph of a decoder."""

    def __init__(self, graph: onnx.GraphProto, names: _Names) -> None:
        self._graph = graph
        self._names = names
        self._written: set[str] = set()

    def emit(self, scope: Scope, name: str) -> str:
        """Copy all that a value needs; return the value's name in the decoder."""
        home = scope.home(name)
        if home is None:
            raise ModelError(f"value '{name}' is read, but nothing makes it")
        new_name = self._names.of(home, name)
        if new_name in self._written:
            return new_name
        tensor = home.stored.get(name)
        if tensor is not None:
            self._written.add(new_name)
            if isinstance(tensor, onnx.TensorProto):
                copied = self._graph.initializer.add()
                copied.CopyFrom(tensor)
                copied.name = new_name
            else:
                sparse = self._graph.sparse_initializer.add()
                sparse.CopyFrom(tensor)
                sparse.values.name = new_name
            return new_name
        node = home.producers[name]
        inputs = [self.emit(home, source) if source else "" for source in node.inputs]
        made = self._graph.node.add()
        made.CopyFrom(node.proto)
        made.input[:] = inputs
        made.output[:] = [self._names.of(home, output) if output else "" for output in node.outputs]
        made.name = node.proto.name or made.output[0]  # what an error will name
        self._written.update(made.output)
        return new_name


def _remove_decoded(scope: Scope) -> None:
    """Remove the nodes that the decoder runs, and what is said about their values."""
    decoded = scope.decoded
    remove_nodes(
        scope,
        {i for i, node in enumerate(scope.nodes) if not decoded.isdisjoint(node.outputs)},
    )
    infos = scope.graph.value_info
    remove_items(infos, {i for i, info in enumerate(infos) if info.name in decoded})
