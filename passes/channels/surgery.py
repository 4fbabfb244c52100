# SPDX-License-Identifier: Apache-2.0
"""Cuts channels out of a model: weights, biases, normalisation parameters, sizes and groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from passes.channels.groups import ChannelMap
from passes.channels.labels import Labels
from passes.channels.trace import constant_input, constant_of

_Cuts = dict[int, np.ndarray]  # axis -> bool, True for positions that stay


def cut_channels(model: ir.Model, channel_map: ChannelMap, removed: Labels) -> None:
    """Removes the channels numbered in ``removed`` from ``model``, in place.

    ``channel_map`` must be the model's own. Constants with several uses get a copy for each way in
    which they are cut; a weight whose uses are all cut alike stays shared and keeps its name.
    """
    gone = np.zeros(int(channel_map.number.max(initial=-1)) + 1, bool)
    gone[removed] = True

    def kept(labels: Labels) -> np.ndarray:
        return np.asarray(~gone[channel_map.number[labels]])

    cuts: dict[ir.Value, dict[tuple[ir.Node, int], _Cuts]] = defaultdict(dict)
    for use in channel_map.constants:
        stay = kept(use.labels)
        if not stay.all():
            cuts[use.value].setdefault((use.node, use.index), {})[use.axis] = stay
    names = _free_names(model)
    for value, uses in cuts.items():
        _cut_constant(model.graph, value, uses, names)
    sizes: dict[tuple[ir.Node, int], dict[int, int]] = defaultdict(dict)
    for edit in channel_map.edits:
        stay = kept(edit.labels)
        if edit.index is None:
            edit.node.attributes["group"] = ir.AttrInt64("group", int(stay.sum()))
        else:
            sizes[edit.node, edit.index][edit.position] = int(stay.sum())
    for (node, index), entries in sizes.items():
        _set_sizes(model.graph, node, index, entries, names)
    for value in channel_map.values:
        value.shape = None


def add_initializer(
    model: ir.Model, node: ir.Node, index: int, array: np.ndarray, base: str
) -> None:
    """Gives ``node`` a new initializer as input ``index``, named ``base`` or like it."""
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    copy = _initializer(model.graph, ir.Tensor(array), _free_names(model).next(base))
    node.replace_input_with(index, copy)


def _cut_constant(
    graph: ir.Graph,
    value: ir.Value,
    uses: dict[tuple[ir.Node, int], _Cuts],
    names: _Names,
) -> None:
    ways: dict[tuple[tuple[int, bytes], ...], list[tuple[ir.Node, int]]] = defaultdict(list)
    for use, axes in uses.items():
        key = tuple((axis, stay.tobytes()) for axis, stay in sorted(axes.items()))
        ways[key].append(use)
    alike = len(ways) == 1 and len(uses) == len(value.uses()) and not value.is_graph_output()
    array = constant_of(value)
    if array is None:
        raise ValueError(f"{value.name} is no constant any more")
    for members in ways.values():
        part = array
        for axis, stay in uses[members[0]].items():
            part = np.compress(stay, part, axis)
        dtype = value.const_value.dtype if value.const_value is not None else None
        tensor = ir.Tensor(np.ascontiguousarray(part), dtype=dtype)
        if alike:
            tensor.name = value.name
            value.const_value, value.shape = tensor, ir.Shape(part.shape)
        else:
            copy = _initializer(graph, tensor, names.next(str(value.name)))
            for node, index in members:
                node.replace_input_with(index, copy)
    if not value.uses() and not value.is_graph_output():
        del graph.initializers[str(value.name)]


def _set_sizes(
    graph: ir.Graph, node: ir.Node, index: int, entries: dict[int, int], names: _Names
) -> None:
    """Writes numbers of channels into the integers at an input, in a copy of the constant."""
    given = node.inputs[index] if index < len(node.inputs) else None
    if given is None:  # a Split into equal parts, which they may no longer be
        array = np.asarray([entries[place] for place in range(len(node.outputs))], np.int64)
        node.attributes.pop("num_outputs", None)
        node.resize_inputs(max(len(node.inputs), index + 1))
        name = f"{node.outputs[0].name}_sizes"
    else:
        old = constant_of(given)
        if old is None:
            raise ValueError(f"{given.name} is no constant any more")
        array = np.array(old)
        for place, size in entries.items():
            array.reshape(-1)[place] = size
        if np.array_equal(array, old):
            return
        name = str(constant_input(node, index).name)
    copy = _initializer(graph, ir.Tensor(array), names.next(name))
    node.replace_input_with(index, copy)
    if given is not None and not given.uses() and not given.is_graph_output():
        del graph.initializers[str(given.name)]


def _initializer(graph: ir.Graph, tensor: ir.Tensor, name: str) -> ir.Value:
    tensor.name = name
    value = ir.Value(
        name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype)
    )
    graph.register_initializer(value)
    return value


class _Names:
    """Names that no value has yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def next(self, base: str) -> str:
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def _free_names(model: ir.Model) -> _Names:
    from passes.lift_weights import values_of

    return _Names(v.name for graph in model.graphs() for v in values_of(graph) if v.name)
