# SPDX-License-Identifier: Apache-2.0
"""Finds the channels of a model that can be removed, and which must go together.

The main graph is walked once; each operator's rule says where channels go. An operator without a
rule, a graph output, a subgraph, a model-local function: what reaches them must stay, with the
reason. So a graph that is not understood is left alone, never changed wrongly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from passes.channels.elementwise_rules import ELEMENTWISE_RULES
from passes.channels.labels import CannotTraceError, Labels
from passes.channels.layer_rules import LAYER_RULES
from passes.channels.layout_rules import LAYOUT_RULES
from passes.channels.trace import (
    ConstantUse,
    LayerUse,
    Rule,
    SizeEdit,
    Trace,
    describe,
)
from passes.lift_weights import values_of

RULES: dict[str, Rule] = {**ELEMENTWISE_RULES, **LAYOUT_RULES, **LAYER_RULES}
_MIXING = frozenset(
    {"LRN", "LayerNormalization", "GroupNormalization", "RMSNormalization", "Einsum"}
)


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that can be chosen from: all are made by the same layers.

    Attributes:
        name: The weight of the first layer that makes them.
        channels: Their numbers in the ``ChannelMap``, int64 (channels,).
        producers: The layers that make them; several where a residual Add couples them.
        consumers: The layers that take them in, in the order of the graph.
    """

    name: str
    channels: Labels
    producers: tuple[LayerUse, ...]
    consumers: tuple[LayerUse, ...]


@dataclass(frozen=True)
class BlockedLayer:
    """A layer with output channels that must stay: the name of its weight, how many, and why."""

    name: str
    num_channels: int
    reason: str


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """Where the channels of a model are.

    A channel's number stands for every position that goes with it. ``number`` (int64) maps labels
    to channels, ``constants`` and ``edits`` say what changes when channels go, ``values`` which
    computed values have channels.
    """

    groups: tuple[ChannelGroup, ...]
    blocked: tuple[BlockedLayer, ...]
    number: Labels
    consumers: tuple[LayerUse, ...]
    constants: tuple[ConstantUse, ...]
    edits: tuple[SizeEdit, ...]
    values: tuple[ir.Value, ...]


def find_channel_groups(model: ir.Model) -> ChannelMap:
    """The channels of the main graph of ``model``, which is not changed.

    Constants must be initializers (``LiftWeights(min_elements=0)``).
    """
    opset = model.opset_imports.get("", 13)
    trace = Trace(model.graph, opset)
    with inferred_shapes(model):
        for node in model.graph:
            _visit(trace, node)
    _block_outside_uses(trace)
    number, reasons = trace.labels.components()
    return ChannelMap(
        groups=tuple(_groups(trace, number, reasons)),
        blocked=tuple(_blocked(trace, number, reasons)),
        number=number,
        consumers=tuple(trace.consumers),
        constants=tuple(trace.constants),
        edits=tuple(trace.edits),
        values=tuple(trace.layouts),
    )


@contextmanager
def inferred_shapes(model: ir.Model) -> Iterator[None]:
    """Inside, values have the shapes that ONNX infers; afterwards those they had before."""
    values = [value for graph in model.graphs() for value in values_of(graph)]
    before = [(value, value.shape, value.type) for value in values]
    try:
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        yield
    finally:
        for value, shape, kind in before:
            value.shape, value.type = shape, kind


def _visit(trace: Trace, node: ir.Node) -> None:
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    try:
        if rule is None:
            why = "mixes channels" if node.op_type in _MIXING else "not understood"
            raise CannotTraceError(f"{describe(node)}: {why}")
        rule(trace, node)
    except CannotTraceError as error:
        for value in node.inputs:
            if value is not None:
                trace.block(trace.layouts.get(value), str(error))
        for output in node.outputs:
            trace.block(trace.layouts.pop(output, None), str(error))


def _block_outside_uses(trace: Trace) -> None:
    """Outputs of the graph keep their shape; subgraphs are not followed; a weight that something
    else than a layer uses keeps its values."""
    for value, layout in trace.layouts.items():
        if value.is_graph_output():
            trace.block(layout, f"output {value.name!r} of the model")
        for node, _ in value.uses():
            if node.graph is not trace.graph:
                trace.block(layout, f"used inside of a subgraph by {describe(node)}")
    layers = {(u.node, u.index) for u in (*trace.producers, *trace.consumers)}
    for use in (*trace.producers, *trace.consumers):
        for node, index in use.weight.uses():
            if (node, index) not in layers:
                reason = f"weight {use.weight.name!r} is also used by {describe(node)}"
                trace.labels.block(use.labels, reason)


def _groups(trace: Trace, number: Labels, reasons: dict[int, str]) -> Iterator[ChannelGroup]:
    makers: dict[int, list[int]] = defaultdict(list)
    for place, producer in enumerate(trace.producers):
        for channel in np.unique(number[producer.labels]):
            if int(channel) not in reasons:
                makers[int(channel)].append(place)
    classes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for channel, made_by in makers.items():
        classes[tuple(made_by)].append(channel)
    for places, channels in sorted(classes.items()):
        if len(channels) < 2:
            continue
        first = number[trace.producers[places[0]].labels]
        order = {int(channel): place for place, channel in reversed(list(enumerate(first)))}
        members = np.asarray(sorted(channels, key=order.__getitem__), np.int64)
        yield ChannelGroup(
            name=str(trace.producers[places[0]].weight.name),
            channels=members,
            producers=tuple(trace.producers[place] for place in places),
            consumers=tuple(u for u in trace.consumers if np.isin(number[u.labels], members).any()),
        )


def _blocked(trace: Trace, number: Labels, reasons: dict[int, str]) -> Iterator[BlockedLayer]:
    for producer in trace.producers:
        counts: dict[str, int] = defaultdict(int)
        for channel in np.unique(number[producer.labels]):
            if int(channel) in reasons:
                counts[reasons[int(channel)]] += 1
        for reason, count in counts.items():
            yield BlockedLayer(str(producer.weight.name), count, reason)
