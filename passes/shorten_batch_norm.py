# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization with two numbers per channel in place of four."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from passes.chain_builder import short_names
from passes.lift_weights import values_of
from passes.operator_inputs import integer_attribute

_EPSILON = 1e-5  # ONNX's default
_BIASED = ("Conv", "ConvTranspose")


class ShortenBatchNorm(ir.passes.InPlacePass):
    """Turns each BatchNormalization into Mul and Add, and moves the bias of the convolution before
    it into the Add. Where weights must stay as they are (their symbols are trained), this is what
    `FoldBatchNorm` cannot do; ONNX Runtime multiplies both into the weight when it loads a model.

    Factor and shift are computed in float64 and rounded once; outputs change by round-off.

    Left alone: a normalisation in training mode, of a type other than float32, of a value of
    unknown rank, or with an input that is no initializer or one of ``keep``; a bias that is one of
    ``keep`` or that something else uses.

    Example:
        >>> model = ir.from_onnx_text('''
        ... <ir_version: 10, opset_import: ["" : 21]>
        ... g (float[n,2,3] x) => (float[n,2,3] y)
        ... <float[2] s = {2, 3}, float[2] o = {1, 1}, float[2] m = {0, 1}, float[2] v = {1, 4}>
        ... { y = BatchNormalization <epsilon = 0.0> (x, s, o, m, v) }''')
        >>> ShortenBatchNorm()(model).modified
        True
        >>> [node.op_type for node in model.graph]
        ['Mul', 'Add']
    """

    def __init__(self, keep: Collection[str] = ()) -> None:
        super().__init__()
        self.keep = frozenset(keep)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes ``model`` in place."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
                modified |= self._shorten(model, node)
        return ir.passes.PassResult(model, modified=modified)

    def _shorten(self, model: ir.Model, node: ir.Node) -> bool:
        graph, given = model.graph, node.inputs[0]
        if given is None or given.shape is None or len(given.shape) < 2:
            return False
        if integer_attribute(node, "training_mode", 0) or any(o.uses() for o in node.outputs[1:]):
            return False
        arrays = [self._constant(graph, value) for value in node.inputs[1:5]]
        gamma, beta, mean, variance = arrays
        if gamma is None or beta is None or mean is None or variance is None:
            return False
        epsilon = node.attributes.get("epsilon")
        factor = gamma / np.sqrt(variance + (_EPSILON if epsilon is None else epsilon.as_float()))
        layer, bias = given.producer(), None
        if layer is not None and layer.op_type in _BIASED and len(layer.inputs) > 2:
            found, only = layer.inputs[2], len(given.uses()) == 1 and not given.is_graph_output()
            if only and found is not None and len(found.uses()) == 1:
                bias = self._constant(graph, found)
        shift = beta - mean * factor + (0.0 if bias is None else bias * factor)
        tables = [a.astype(np.float32) for a in (factor, shift)]
        if not all(np.isfinite(table).all() for table in tables):
            return False
        if bias is not None and layer is not None:
            layer.replace_input_with(2, None)
            layer.resize_inputs(2)
        column = (-1, *[1] * (len(given.shape) - 2))
        scaled = _node(model, "Mul", given, tables[0].reshape(column))
        moved = _node(model, "Add", scaled.outputs[0], tables[1].reshape(column))
        scaled.outputs[0].name = _free_name(model)
        graph.insert_before(node, [scaled, moved])
        last = node.outputs[0]
        moved.outputs[0].type, moved.outputs[0].shape = last.type, last.shape
        last.replace_all_uses_with(moved.outputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)
        name, last.name = last.name, None
        moved.outputs[0].name = name
        return True

    def _constant(self, graph: ir.Graph, value: ir.Value | None) -> np.ndarray | None:
        """float64 [C] of a float32 initializer that need not be kept."""
        if value is None or value.const_value is None or value.name in self.keep:
            return None
        if value.name not in graph.initializers or value.is_graph_input():
            return None
        if value.const_value.dtype != ir.DataType.FLOAT:
            return None
        return np.asarray(value.const_value.numpy().astype(np.float64))


def _node(model: ir.Model, op_type: str, given: ir.Value, array: np.ndarray) -> ir.Node:
    """``given`` and an initializer under an operator, not yet in the graph."""
    table = ir.Value(
        name=_free_name(model),
        const_value=ir.Tensor(array),
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    model.graph.register_initializer(table)
    return ir.Node("", op_type, [given, table], outputs=[ir.Value()])


def _free_name(model: ir.Model) -> str:
    return next(short_names(v.name for g in model.graphs() for v in values_of(g) if v.name))
