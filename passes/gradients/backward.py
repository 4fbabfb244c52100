# SPDX-License-Identifier: Apache-2.0
"""Makes a model compute gradients of its own outputs: reverse-mode differentiation, node by node
(A. Griewank, A. Walther, "Evaluating derivatives", 2008, chapter 3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import zip_longest

import onnx_ir as ir

from passes.gradients import elementwise_rules, product_rules, shape_rules
from passes.gradients.tape import Given, Rule, Tape

RULES: dict[str, Rule] = {**elementwise_rules.RULES, **shape_rules.RULES, **product_rules.RULES}
_DOMAINS = ("", "ai.onnx")


def with_gradients(
    model: ir.Model, names: Collection[str], seeds: Mapping[str, ir.Value]
) -> dict[str, str]:
    """Adds to ``model`` the gradients of the sum of products of values and ``seeds``, with respect
    to the values in ``names``.

    Args:
        model: Changed: nodes and initializers are added, no outputs. Of opset 13 or newer.
        names: Of float32 values of the main graph, ranks known where they enter MatMul or Conv.
        seeds: By the names of float32 values, values of the same shape, which ``model`` has.

    Returns:
        Names of the gradients by the names of the values. Those left out do not reach any of the
        seeds' values, or reach it through an operator that is not followed (`RULES`).
    """
    graph = model.graph
    values = {str(v.name): v for v in graph.inputs}
    values |= {str(output.name): output for node in graph for output in node.outputs}
    wanted = {values[name] for name in names if name in values}
    reached = _reached_from(graph, wanted)
    tape = Tape(graph)
    nodes = list(graph)
    sums: dict[ir.Value, ir.Value] = {}
    unknown: set[ir.Value] = set()
    for name, seed in seeds.items():
        sums[values[name]] = seed
    for node in reversed(nodes):
        if not any(output in reached for output in node.outputs):
            continue
        given = [sums.get(output) for output in node.outputs]
        lost = any(output in unknown for output in node.outputs)
        if not lost and all(value is None for value in given):
            continue
        inputs = [value for value in node.inputs if value is not None and value in reached]
        found: Given = None
        rule = RULES.get(node.op_type) if node.domain in _DOMAINS else None
        first = given[0]
        if not lost and rule is not None and first is not None and not any(given[1:]):
            found = rule(tape, node, first)
        if found is None:
            unknown.update(inputs)
            continue
        for value, part in zip_longest(node.inputs, found):
            if value is None or value not in reached:
                continue
            if part is None:
                unknown.add(value)
            else:
                known = sums.get(value)
                sums[value] = part if known is None else tape.op("Add", known, part)
    return {
        str(value.name): str(sums[value].name)
        for value in wanted
        if value in sums and value not in unknown
    }


def _reached_from(graph: ir.Graph, values: Collection[ir.Value]) -> set[ir.Value]:
    """The values and all that is computed from them."""
    reached = set(values)
    for node in graph:
        used = [value for value in node.inputs if value is not None]
        inner = [
            value
            for attribute in node.attributes.values()
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for value in _captured(attribute)
        ]
        if any(value in reached for value in [*used, *inner]):
            reached.update(node.outputs)
    return reached


def _captured(attribute: ir.Attr) -> list[ir.Value]:
    """Values that subgraphs use, of whichever graph they are."""
    graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
    graphs = graphs or list(attribute.as_graphs())
    return [
        value
        for graph in graphs
        for node in graph.all_nodes()
        for value in node.inputs
        if value is not None
    ]
