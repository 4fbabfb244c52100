# SPDX-License-Identifier: Apache-2.0
"""Rules of the operators that move channels: Concat, Split, Transpose, Squeeze, Resize, ..."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from passes.channels.labels import CannotTraceError, Layout
from passes.channels.reshape_rule import flatten, reshape
from passes.channels.trace import (
    Rule,
    Trace,
    constant_input,
    constant_of,
    describe,
    dims_of,
    integer,
    integers,
    integers_of,
    known_rank,
)


def concat(trace: Trace, node: ir.Node) -> None:
    """Along the channel axis: the channels one after the other; along another: coupled."""
    layouts = [trace.layout(node, index) for index in range(len(node.inputs))]
    found = [layout for layout in layouts if layout is not None]
    if not found:
        return
    axis = integer(node, "axis", 0) % known_rank(node.outputs[0])
    if any(layout.axis != found[0].axis for layout in found):
        raise CannotTraceError(f"{describe(node)}: channels on several axes")
    if axis != found[0].axis:
        for index, layout in enumerate(layouts):
            if layout is not None:
                trace.labels.join(found[0].labels, layout.labels)
            else:
                trace.constant(node, index, found[0].axis, found[0].labels)
        trace.give(node.outputs[0], found[0].axis, found[0].labels)
        return
    parts = []
    for index, layout in enumerate(layouts):
        value = constant_input(node, index)
        size = (dims_of(value) or (None,) * (axis + 1))[axis]
        if layout is not None:
            parts.append(layout.labels)
        elif size is not None:
            parts.append(trace.labels.fixed(size, f"{describe(node)}: {value.name} stays whole"))
        else:
            raise CannotTraceError(f"{describe(node)}: the size of {value.name} is unknown")
    trace.give(node.outputs[0], axis, np.concatenate(parts))


def split(trace: Trace, node: ir.Node) -> None:
    """Along the channel axis: each output has its part; along another: all have all."""
    layout = trace.layout(node)
    if layout is None:
        return
    axis = integer(node, "axis", 0) % known_rank(constant_input(node, 0))
    if axis != layout.axis:
        for output in node.outputs:
            trace.give(output, layout.axis, layout.labels)
        return
    given = node.inputs[1] if len(node.inputs) > 1 else None
    sizes = integers_of(given)
    if sizes is None:
        if given is not None:
            raise CannotTraceError(f"{describe(node)}: its sizes are computed")
        count = len(node.outputs)
        size = -(-layout.labels.size // count)
        sizes = [size] * (count - 1) + [layout.labels.size - size * (count - 1)]
    start = 0
    for position, (size, output) in enumerate(zip(sizes, node.outputs, strict=True)):
        labels = layout.labels[start : start + size]
        trace.edit(node, 1, position, labels)
        trace.give(output, axis, labels)
        start += size


def transpose(trace: Trace, node: ir.Node) -> None:
    """The channel axis moves."""
    layout = trace.layout(node)
    if layout is not None:
        rank = known_rank(node.outputs[0])
        order = integers(node, "perm") or list(reversed(range(rank)))
        trace.give(node.outputs[0], order.index(layout.axis), layout.labels)


def squeeze(trace: Trace, node: ir.Node) -> None:
    """Other axes go or come, at constant places."""
    layout = trace.layout(node)
    if layout is None:
        return
    axes = integers_of(node.inputs[1]) if len(node.inputs) > 1 else integers(node, "axes")
    if axes is None:
        raise CannotTraceError(f"{describe(node)}: its axes are computed, or not given")
    if node.op_type == "Squeeze":
        rank = known_rank(constant_input(node, 0))
        places = [axis for axis in range(rank) if axis not in {a % rank for a in axes}]
    else:
        rank = known_rank(constant_input(node, 0)) + len(axes)
        places = [axis for axis in range(rank) if axis not in {a % rank for a in axes}]
        trace.give(node.outputs[0], places[layout.axis], layout.labels)
        return
    trace.give(node.outputs[0], places.index(layout.axis), layout.labels)


def resize(trace: Trace, node: ir.Node) -> None:
    """Resize and Upsample of other axes than the channels'."""
    layout = trace.layout(node)
    if layout is None:
        return
    if integers(node, "axes") is not None:
        raise CannotTraceError(f"{describe(node)}: sizes are given for some axes")
    by_sizes = len(node.inputs) > 3 and node.inputs[3] is not None
    array = constant_of(node.inputs[3] if by_sizes else node.inputs[-1])
    if array is None:
        raise CannotTraceError(f"{describe(node)}: its sizes are computed")
    wanted = layout.labels.size if by_sizes else 1
    if array.reshape(-1)[layout.axis] != wanted:
        raise CannotTraceError(f"{describe(node)}: changes the number of channels")
    if by_sizes:
        trace.edit(node, 3, layout.axis, layout.labels)
    trace.give(node.outputs[0], layout.axis, layout.labels)


def expand(trace: Trace, node: ir.Node) -> None:
    """Expand of other axes than the channels'."""
    layout = trace.layout(node)
    sizes = integers_of(node.inputs[1])
    if layout is None:
        return
    if sizes is None:
        raise CannotTraceError(f"{describe(node)}: its sizes are computed")
    rank = known_rank(constant_input(node, 0))
    place = layout.axis + len(sizes) - rank
    if place >= 0 and sizes[place] == layout.labels.size:
        trace.edit(node, 1, place, layout.labels)
    elif place >= 0 and sizes[place] != 1:
        raise CannotTraceError(f"{describe(node)}: changes the number of channels")
    trace.give(node.outputs[0], layout.axis + max(len(sizes) - rank, 0), layout.labels)


def gather(trace: Trace, node: ir.Node) -> None:
    """Gather along another axis than the channels'."""
    layout = trace.layout(node)
    if trace.layout(node, 1) is not None:
        raise CannotTraceError(f"{describe(node)}: channels as indices")
    if layout is None:
        return
    axis = integer(node, "axis", 0) % known_rank(constant_input(node, 0))
    if axis == layout.axis:
        raise CannotTraceError(f"{describe(node)}: picks channels")
    shift = known_rank(constant_input(node, 1)) - 1 if axis < layout.axis else 0
    trace.give(node.outputs[0], layout.axis + shift, layout.labels)


def slices(trace: Trace, node: ir.Node) -> None:
    """Slice along other axes than the channels'."""
    layout = trace.layout(node)
    if layout is None:
        return
    axes = integers_of(node.inputs[3]) if len(node.inputs) > 3 else None
    rank = known_rank(constant_input(node, 0))
    if axes is None or layout.axis in {axis % rank for axis in axes}:
        raise CannotTraceError(f"{describe(node)}: slices channels")
    trace.give(node.outputs[0], layout.axis, layout.labels)


def shape(trace: Trace, node: ir.Node) -> None:
    """Shape, where only other sizes than the number of channels are read from it."""
    layout = trace.layout(node)
    if layout is None:
        return
    rank = known_rank(constant_input(node, 0))
    start, end = integer(node, "start", 0), integer(node, "end", rank)
    read = range(rank)[start:end]
    if layout.axis in read and not _reads_others(node, layout, read):
        raise CannotTraceError(f"{describe(node)}: reads the number of channels")


def _reads_others(node: ir.Node, layout: Layout, read: range) -> bool:
    for user, index in node.outputs[0].uses():
        picked = integers_of(user.inputs[1]) if len(user.inputs) > 1 and index == 0 else None
        if picked is None or node.outputs[0].is_graph_output():
            return False
        if user.op_type == "Gather":
            places = [read[p] for p in picked]
        elif user.op_type == "Slice" and len(user.inputs) < 5:
            ends = integers_of(user.inputs[2])
            if ends is None:
                return False
            places = list(read[picked[0] : ends[0]])
        else:
            return False
        if layout.axis in places:
            return False
    return True


LAYOUT_RULES: dict[str, Rule] = {
    "Concat": concat,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Reshape": reshape,
    "Resize": resize,
    "Shape": shape,
    "Slice": slices,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": squeeze,
    "Upsample": resize,
}
