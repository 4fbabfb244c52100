# SPDX-License-Identifier: Apache-2.0
"""Folds BatchNormalization into the layer before it (Jacob et al. 2018, "Quantization and training
of neural networks for efficient integer-arithmetic-only inference", section 3.2)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.lift_weights import values_of
from passes.operator_inputs import integer_attribute

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_EPSILON = 1e-5  # ONNX's default


@dataclass
class FoldResult(ir.passes.PassResult):
    """The pass's result: names of the weights that a normalisation went into."""

    folded: tuple[str, ...] = ()


class FoldBatchNorm(ir.passes.InPlacePass):
    """Multiplies the scale of a BatchNormalization into the weight of the Conv, ConvTranspose or
    Gemm before it, and moves its shift into that layer's bias. The weight keeps its name; a bias
    that there was not is named after it.

    The products are computed in float64 and rounded once; outputs change by round-off.

    Left alone: a normalisation in training mode or with an input that is no initializer of the main
    graph; a layer whose output something else reads or that is an output of the graph; a weight
    that another node uses too, so that shared weights stay shared; results that are not finite in
    the weight's type; where one of the constants is named in ``keep``.

    Example:
        >>> model = ir.from_onnx_text('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... g (float[n,2] x) => (float[n,2] y)
        ... <float[2,2] w = {1, 0, 0, 1}, float[2] s = {2, 3}, float[2] o = {1, 1},
        ...  float[2] mean = {0, 0}, float[2] var = {1, 4}>
        ... { h = Gemm (x, w)  y = BatchNormalization <epsilon = 0.0> (h, s, o, mean, var) }''')
        >>> FoldBatchNorm()(model).folded
        ('w',)
        >>> [node.op_type for node in model.graph]
        ['Gemm']
        >>> model.graph.initializers["w"].const_value.numpy().tolist()
        [[2.0, 0.0], [0.0, 1.5]]
    """

    def __init__(self, keep: Collection[str] = ()) -> None:
        super().__init__()
        self.keep = frozenset(keep)

    def call(self, model: ir.Model) -> FoldResult:
        """Changes ``model`` in place."""
        folded = []
        for node in list(model.graph):
            layer = _layer_before(node, model.graph)
            if layer is not None and self._keeps(layer, node):
                continue
            if layer is not None and _fold(model.graph, layer, node):
                folded.append(str(layer.inputs[1].name))  # type: ignore[union-attr]
        return FoldResult(model, bool(folded), tuple(folded))

    def _keeps(self, layer: ir.Node, node: ir.Node) -> bool:
        """Whether one of the constants must stay as it is."""
        constants = (*layer.inputs[1:], *node.inputs[1:])
        return any(value is not None and value.name in self.keep for value in constants)


def _layer_before(node: ir.Node, graph: ir.Graph) -> ir.Node | None:
    """The layer that a BatchNormalization can go into."""
    if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
        return None
    given = node.inputs[0]
    layer = None if given is None else given.producer()
    if given is None or layer is None or layer.op_type not in _LAYERS or layer.graph is not graph:
        return None
    if integer_attribute(node, "training_mode", 0) or any(o.uses() for o in node.outputs[1:]):
        return None
    if given.is_graph_output() or len(given.uses()) != 1:
        return None
    weight = layer.inputs[1]
    constants = [*node.inputs[1:5], weight, *(v for v in layer.inputs[2:3] if v is not None)]
    if not all(v is not None and v.name in graph.initializers for v in constants):
        return None
    if any(v is None or v.is_graph_input() or v.const_value is None for v in constants):
        return None
    return layer if weight is not None and len(weight.uses()) == 1 else None


def _fold(graph: ir.Graph, layer: ir.Node, node: ir.Node) -> bool:
    gamma, beta, mean, variance = (_float64(value) for value in node.inputs[1:5])
    epsilon = node.attributes.get("epsilon")
    factor = gamma / np.sqrt(variance + (_EPSILON if epsilon is None else epsilon.as_float()))
    weight = layer.inputs[1]
    if weight is None or weight.const_value is None:
        return False
    dtype = weight.const_value.dtype.numpy()
    scaled = _scaled(_float64(weight), factor, layer)
    old = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias = np.zeros(()) if old is None else _float64(old)
    if old is not None and layer.op_type == "Gemm" and (share := layer.attributes.get("beta")):
        bias = bias * share.as_float()
    bias = np.broadcast_to((bias - mean) * factor + beta, factor.shape)
    with np.errstate(over="ignore"):
        new_weight, new_bias = scaled.astype(dtype), bias.astype(dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return False
    weight.const_value = ir.Tensor(
        new_weight, dtype=weight.const_value.dtype, name=weight.name, shape=weight.shape
    )
    value = _initializer(graph, f"{weight.name}_bias", new_bias)
    if old is not None and len(old.uses()) == 1:  # the old name, where nothing else uses it
        name = str(old.name)
        layer.replace_input_with(2, None)
        del graph.initializers[name]
        value.name = name
    graph.register_initializer(value)
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    layer.replace_input_with(2, value)
    layer.attributes.pop("beta", None)
    _skip(graph, layer.outputs[0], node)
    return True


def _scaled(weight: np.ndarray, factor: np.ndarray, layer: ir.Node) -> np.ndarray:
    """``weight`` times one factor per output channel."""
    if layer.op_type == "ConvTranspose":
        groups = integer_attribute(layer, "group", 1)
        parts = weight.reshape(groups, -1, *weight.shape[1:])
        factors = factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return np.asarray((parts * factors).reshape(weight.shape))
    axis = 0
    if layer.op_type == "Gemm" and not integer_attribute(layer, "transB", 0):
        axis = 1
    return np.asarray(weight * factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]))


def _skip(graph: ir.Graph, output: ir.Value, node: ir.Node) -> None:
    """Takes ``node`` out; ``output`` goes on under the name of the node's own."""
    last = node.outputs[0]
    last.replace_all_uses_with(output, replace_graph_outputs=True)
    name, output.shape, output.type = last.name, last.shape, last.type
    parameters = [value for value in node.inputs[1:] if value is not None]
    graph.remove(node, safe=True)
    last.name, output.name = None, name
    for value in parameters:
        if not value.uses() and not value.is_graph_output() and value.name in graph.initializers:
            del graph.initializers[value.name]


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer, not yet registered, with a name that is free."""
    taken = {value.name for value in values_of(graph)}
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    tensor = ir.Tensor(array, name=free)
    return ir.Value(
        name=free, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype)
    )


def _float64(value: ir.Value | None) -> np.ndarray:
    if value is None or value.const_value is None:
        raise TypeError("expected a constant")
    return np.asarray(value.const_value.numpy().astype(np.float64))
