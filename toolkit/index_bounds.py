# SPDX-License-Identifier: Apache-2.0
"""Finds how large an integer input may be: the length of the table which it indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_PASSED_ON = frozenset(
    {
        "Cast",
        "Identity",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Expand",
        "Clip",
        "Concat",
        "Tile",
    }
)
"""Operators which hand integers on unchanged, to their first outputs."""

_MAX_VALUES = 10_000


def index_bounds(model: ir.Model) -> dict[str, int]:
    """Exclusive upper bound of each graph input that indexes a table: Gather on an axis of a known
    size, or OneHot of a known depth. Inputs without such a use are left out."""
    bounds: dict[str, int] = {}
    for value in model.graph.inputs:
        bound = _bound(value)
        if value.name is not None and bound is not None:
            bounds[value.name] = bound
    return bounds


def _bound(start: ir.Value) -> int | None:
    found: int | None = None
    queue, seen = [start], {id(start)}
    while queue and len(seen) < _MAX_VALUES:
        value = queue.pop()
        for node, index in value.uses():
            limit = _limit(node, index)
            if limit is not None:
                found = limit if found is None else min(found, limit)
            if node.op_type in _PASSED_ON and (index == 0 or node.op_type == "Concat"):
                for output in node.outputs:
                    if id(output) not in seen:
                        seen.add(id(output))
                        queue.append(output)
    return found


def _limit(node: ir.Node, index: int) -> int | None:
    if node.op_type == "Gather" and index == 1:
        table = node.inputs[0]
        axis = node.attributes.get("axis")
        position = axis.as_int() if axis is not None else 0
        if (
            table is None
            or table.shape is None
            or not -len(table.shape) <= position < len(table.shape)
        ):
            return None
        size = table.shape[position]
        return size if isinstance(size, int) and size > 0 else None
    if node.op_type == "OneHot" and index == 0:
        depth = node.inputs[1]
        if depth is None or depth.const_value is None:
            return None
        return max(int(depth.const_value.numpy().reshape(-1)[0]), 1)
    return None
