# SPDX-License-Identifier: Apache-2.0
"""Where channels go in Reshape and Flatten: kept, merged with other axes, or divided into two.

Merged (flatten before a dense layer, heads joined after attention): each position of the merged
axis has the label of its channel. Divided into (a, b): one of the two stays the channel axis and
the other is tied together. Where the channels were the last axis (attention), the first stays, so
that whole heads go; else (channel shuffle) the second, so that all groups lose the same channels.
Divided into three (query, key and value of one matrix), the heads stay the channel axis: the
second, or the first where the second counts query, key and value.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from passes.channels.labels import CannotTraceError, ChannelLabels, Layout
from passes.channels.trace import (
    Dims,
    Trace,
    constant_input,
    constant_of,
    describe,
    dims_of,
    integer,
)


def reshape(trace: Trace, node: ir.Node) -> None:
    """Reshape to constant sizes, or to sizes joined by Concat of which the channels' is constant or
    -1; it becomes the new number of channels."""
    layout = trace.layout(node)
    if layout is None:
        return
    moved = _reshaped(trace, node, layout)
    count = moved.labels.size
    sizes = _sizes(node)
    size, copied = sizes[moved.axis], sizes[layout.axis] if layout.axis < len(sizes) else None
    if size is None:
        raise CannotTraceError(f"{describe(node)}: its sizes are computed")
    if copied == 0 and moved.axis != layout.axis:
        raise CannotTraceError(f"{describe(node)}: copies the number of channels to another axis")
    if integer(node, "allowzero", 0) and 0 in sizes:
        raise CannotTraceError(f"{describe(node)}: to an empty shape")
    if size == count:
        owner = node if constant_of(node.inputs[1]) is not None else _concat(node)
        index, position = (1, moved.axis) if owner is node else (moved.axis, 0)
        trace.edit(owner, index, position, moved.labels)
    elif size not in (0, -1):
        raise CannotTraceError(f"{describe(node)}: gives {size} channels, expected {count}")
    trace.give(node.outputs[0], moved.axis, moved.labels)


def _sizes(node: ir.Node) -> list[int | None]:
    """The sizes that a Reshape is given, None for those that are computed."""
    array = constant_of(node.inputs[1])
    if array is not None:
        return [int(size) for size in array.reshape(-1)]
    parts = [constant_of(value) for value in _concat(node).inputs]
    return [None if part is None else int(part.reshape(-1)[0]) for part in parts]


def _concat(node: ir.Node) -> ir.Node:
    """The Concat that joins the sizes of a Reshape, each of its inputs one size."""
    producer = constant_input(node, 1).producer()
    good = producer is not None and producer.op_type == "Concat"
    if producer is None or not good or len(producer.outputs[0].uses()) > 1:
        raise CannotTraceError(f"{describe(node)}: its sizes are computed")
    if any(value is None or dims_of(value) != (1,) for value in producer.inputs):
        raise CannotTraceError(f"{describe(node)}: its sizes are computed")
    return producer


def flatten(trace: Trace, node: ir.Node) -> None:
    """Flatten: two axes remain, split before ``axis``."""
    layout = trace.layout(node)
    if layout is None:
        return
    dims = dims_of(constant_input(node, 0)) or ()
    start = integer(node, "axis", 1)
    start += len(dims) if start < 0 else 0
    rest = dims[start:]
    if layout.axis < start or None in rest:
        raise CannotTraceError(f"{describe(node)}: channels in the first axis, or sizes unknown")
    before = prod(d for d in dims[start : layout.axis] if d is not None)
    after = prod(d for d in dims[layout.axis + 1 :] if d is not None)
    labels = np.tile(np.repeat(layout.labels, after), before)
    trace.give(node.outputs[0], 1, labels)


def _reshaped(trace: Trace, node: ir.Node, layout: Layout) -> Layout:
    before = dims_of(constant_input(node, 0))
    after = dims_of(node.outputs[0])
    if before is None or after is None:
        raise CannotTraceError(f"{describe(node)}: shapes unknown")
    try:
        return moved_layout(layout, before, after, trace.labels)
    except CannotTraceError as error:
        raise CannotTraceError(f"{describe(node)}: {error}") from error


def moved_layout(layout: Layout, before: Dims, after: Dims, labels: ChannelLabels) -> Layout:
    """The layout behind a reshape from ``before`` to ``after``.

    Dimensions are matched from the last axis on, so leading ones may be unknown.

    Raises:
        CannotTraceError: the channels do not stay whole, or sizes that matter are unknown.
    """
    count = layout.labels.size
    inner = _known_product(before[layout.axis + 1 :])
    outer = inner * count
    step, axes = 1, []  # step: elements from one position of an axis to the next
    for axis in reversed(range(len(after))):
        if step >= outer:
            break
        size = after[axis]
        if size is None:
            raise CannotTraceError("sizes are unknown")
        if size > 1 and step * size > inner:
            axes.append((axis, size, step))
        step *= size
    axes.reverse()
    if len(axes) == 1:
        return _merged(layout, *axes[0], inner)
    sizes = [size for _, size, _ in axes]
    if len(axes) == 3 and layout.axis == len(before) - 1 and prod(sizes) == count:
        heads = 0 if sizes[1] == 3 else 1
        grid = np.moveaxis(layout.labels.reshape(sizes), heads, 0).reshape(sizes[heads], -1)
        labels.join(grid[:, :1], grid)
        return Layout(axes[heads][0], grid[:, 0])
    if len(axes) != 2 or prod(sizes) != count or axes[1][2] != inner:
        raise CannotTraceError(f"{count} channels become {sizes}")
    grid = layout.labels.reshape(sizes)
    if layout.axis == len(before) - 1:
        labels.join(grid[:, :1], grid)
        return Layout(axes[0][0], grid[:, 0])
    labels.join(grid[:1], grid)
    return Layout(axes[1][0], grid[0])


def _merged(layout: Layout, axis: int, size: int, step: int, inner: int) -> Layout:
    """One axis of ``size`` positions, ``step`` elements apart, covers all channels."""
    count = layout.labels.size
    if inner % step or (size * step) % (inner * count):
        raise CannotTraceError(f"{count} channels do not fit into an axis of {size}")
    positions = np.arange(size, dtype=np.int64) * step
    return Layout(axis, layout.labels[(positions // inner) % count])


def _known_product(sizes: Sequence[int | None]) -> int:
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        raise CannotTraceError("sizes behind the channels are unknown")
    return prod(known)
