# SPDX-License-Identifier: Apache-2.0
"""Removes from a model what does not change what it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import (
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from passes.chain_builder import short_names

_WEIGHT_TYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.INT8,
    ir.DataType.UINT8,
)


class CleanUp(ir.passes.InPlacePass):
    """Removes dead parts, duplicates and texts.

    Rules, in this order:
      1. Nodes and initializers that no output needs, functions that nobody calls, unused opset
         imports.
      2. Initializers of one graph with the same type, shape and bytes become one.
      3. Doc strings and metadata of graphs, nodes, values and functions (exporters leave stack
         traces there).
      4. Types and shapes of intermediate values (``value_info``): ONNX Runtime infers them.
      5. Node names, unless ``keep_node_names``.
      6. With ``rename_values``: short names for values inside of the graph and its subgraphs.

    Left alone: names of graph inputs and outputs, of weights (float or 8-bit initializers of two or
    more elements, and what EncodeWeights made of them) and of ``keep``; the model's own metadata,
    which programs read; values inside of functions.
    """

    def __init__(
        self,
        *,
        rename_values: bool = True,
        keep_node_names: bool = False,
        keep: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.rename_values, self.keep_node_names = rename_values, keep_node_names
        self.keep = frozenset(keep)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes ``model`` in place."""
        modified = _merge_duplicates(model)
        modified |= RemoveUnusedNodesPass()(model).modified
        modified |= RemoveUnusedFunctionsPass()(model).modified  # type: ignore[no-untyped-call]
        modified |= RemoveUnusedOpsetsPass()(model).modified
        modified |= _clear_texts(model)
        modified |= self._clear_nodes(model)
        if self.rename_values:
            modified |= self._rename(model)
        return ir.passes.PassResult(model, modified=modified)

    def _clear_nodes(self, model: ir.Model) -> bool:
        modified = False
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.name and not self.keep_node_names:
                node.name, modified = None, True
            for value in node.outputs:
                if value.is_graph_output() or (value.type is None and value.shape is None):
                    continue
                value.type, value.shape, modified = None, None, True
        return modified

    def _rename(self, model: ir.Model) -> bool:
        graphs = list(model.graphs())
        values = [v for graph in graphs for v in _ordered_values(graph)]
        fixed = {v.name for v in values if self._keeps_name(model, v)} | {""}
        renamed = [v for v in values if v.name and v.name not in fixed]
        names = short_names(name for name in fixed if name)
        targets = {id(v): next(names) for v in renamed}
        changed = [v for v in renamed if v.name != targets[id(v)]]
        if not changed:
            return False
        for graph in graphs:  # initializers are stored by name: take them out while names move
            held = list(graph.initializers.values())
            for value in held:
                del graph.initializers[value.name or ""]
            graph_values = [v for v in [*_ordered_values(graph), *held] if id(v) in targets]
            for value in graph_values:
                value.name = targets[id(value)]
            for value in held:
                graph.register_initializer(value)
        return True

    def _keeps_name(self, model: ir.Model, value: ir.Value) -> bool:
        if value.name in self.keep or value.meta.get("weight") or value.name is None:
            return True
        if value in model.graph.inputs or value in model.graph.outputs:
            return True
        tensor = value.const_value if value.is_initializer() else None
        return tensor is not None and tensor.size >= 2 and tensor.dtype in _WEIGHT_TYPES


def _ordered_values(graph: ir.Graph) -> list[ir.Value]:
    """Inputs, initializers and node outputs of one graph, each once, in a fixed order."""
    listed = [
        *graph.inputs,
        *graph.initializers.values(),
        *(o for node in graph for o in node.outputs),
    ]
    return list(dict.fromkeys(listed))


def _merge_duplicates(model: ir.Model) -> bool:
    """Merges equal initializers of a graph; onnx_ir's own pass does not take bfloat16 or
    strings."""
    modified = False
    for graph in model.graphs():
        first: dict[Any, ir.Value] = {}
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or value.is_graph_input() or value.is_graph_output():
                continue
            if tensor.dtype == ir.DataType.STRING:
                continue
            digest = hashlib.blake2b(tensor.tobytes(), digest_size=32).digest()
            key = (tensor.dtype, tuple(tensor.shape.numpy()), digest)
            kept = first.setdefault(key, value)
            if kept is not value:
                value.replace_all_uses_with(kept)
                del graph.initializers[name]
                modified = True
    return modified


def _clear_texts(model: ir.Model) -> bool:
    modified = bool(model.doc_string)
    model.doc_string = None
    holders: list[Any] = []
    roots: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for root in roots:
        holders += [root, *root.inputs]
        for node in ir.traversal.RecursiveGraphIterator(root):
            holders += [node, *node.outputs]
    for graph in model.graphs():
        holders += [graph, *graph.inputs, *graph.initializers.values()]
    for holder in holders:
        if holder.doc_string or holder.metadata_props:
            holder.doc_string, modified = None, True
            holder.metadata_props.clear()
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.doc_string:
                value.const_value.doc_string, modified = None, True
    return modified
