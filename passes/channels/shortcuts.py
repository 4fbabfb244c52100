# SPDX-License-Identifier: Apache-2.0
"""Layers at the end of a residual branch, which can make up for errors of the shortcut.

He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section
3.3: such a layer is fitted to Y1 + Y2 - Y1', the original's sum less what the shortcut gives now.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from passes.channels.layer_samples import MatrixLayer
from passes.channels.trace import constant_of


@dataclass(frozen=True, eq=False)
class Shortcut:
    """The sum that a layer's output goes into, and the other thing added there."""

    total: ir.Value
    other: ir.Value


def shortcut_of(layer: MatrixLayer) -> Shortcut | None:
    """The shortcut around a layer, None where its output goes elsewhere than into one Add of
    computed values, or is seen from outside."""
    users = layer.output.uses()
    if len(users) != 1 or layer.output.is_graph_output():
        return None
    node, index = users[0]
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return None
    other = node.inputs[1 - index]
    if other is None or node.graph is not layer.use.node.graph:
        return None
    if constant_of(other) is not None or other.is_initializer():
        return None
    return Shortcut(node.outputs[0], other)
