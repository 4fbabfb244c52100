# SPDX-License-Identifier: Apache-2.0
"""Brings every weight to the main graph, where the other passes look for it."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    LiftSubgraphInitializersToMainGraphPass,
)


class LiftWeights(ir.passes.InPlacePass):
    """Turns weights in Constant nodes, model-local functions and subgraphs into initializers of the
    main graph.

    Rules, in this order:
      1. Functions that hold a Constant of ``min_elements`` or more are inlined; others stay
         functions.
      2. Constant nodes with a tensor of ``min_elements`` or more become initializers.
      3. Initializers of If, Loop and Scan bodies move to the main graph, renamed where the name is
         taken.

    Left alone: Constants that are graph outputs or hold fewer elements, initializers that are
    inputs or outputs of their subgraph, functions that cannot be inlined (graph attributes, other
    opset).
    """

    def __init__(self, min_elements: int = 16) -> None:
        super().__init__()
        self.min_elements = min_elements

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes ``model`` in place."""
        modified = False
        heavy = {name for name, body in model.functions.items() if self._is_heavy(model, body)}
        if heavy:
            result = InlinePass(criteria=lambda body: body.identifier() in heavy)(model)
            modified = result.modified
        make_names_unique(model)
        lift = LiftConstantsToInitializersPass(size_limit=self.min_elements)
        modified = lift(model).modified or modified
        modified = LiftSubgraphInitializersToMainGraphPass()(model).modified or modified
        return ir.passes.PassResult(model, modified=modified)

    def _is_heavy(self, model: ir.Model, body: ir.Function) -> bool:
        if any(
            version != model.opset_imports.get(d, version)
            for d, version in body.opset_imports.items()
        ):
            return False
        for node in ir.traversal.RecursiveGraphIterator(body):
            value = node.attributes.get("value") if node.op_type == "Constant" else None
            if (
                value is not None
                and not value.is_ref()
                and value.as_tensor().size >= self.min_elements
            ):
                return True
        return False


def make_names_unique(model: ir.Model) -> None:
    """Renames constants of subgraphs that share their name with a value of another graph.

    Sibling subgraphs may use a name twice, each for itself; in the main graph they could not.
    """
    taken = {value.name for value in values_of(model.graph)}
    for graph in model.graphs():
        if graph is model.graph:
            continue
        constants = [n.outputs[0] for n in graph if n.op_type == "Constant"]
        candidates = [*graph.initializers.values(), *constants]
        for value in values_of(graph):
            if value not in candidates or value.is_graph_input() or value.is_graph_output():
                taken.add(value.name)
        for value in candidates:
            if value.is_graph_input() or value.is_graph_output():
                continue
            name, number = value.name, 0
            while value.name in taken:
                number += 1
                value.name = f"{name}_{number}"
            taken.add(value.name)


def values_of(graph: ir.Graph) -> list[ir.Value]:
    """Inputs, initializers and node outputs of one graph, without its subgraphs."""
    named = [*graph.inputs, *graph.initializers.values()]
    return named + [output for node in graph for output in node.outputs]
