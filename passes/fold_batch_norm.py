# SPDX-License-Identifier: Apache-2.0
"""Folds batch normalisation into the layer before it.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, section 3.2 (equation 14), with the bias folded too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.channels.layer_samples import set_constant
from passes.channels.surgery import add_initializer
from passes.channels.trace import constant_input, constant_of, integer, unused

Floats = npt.NDArray[np.float64]


class FoldBatchNorm(ir.passes.InPlacePass):
    """Folds BatchNormalization into a Conv, ConvTranspose or Gemm before it.

    The layer's weight is multiplied by gamma / sqrt(variance + epsilon) of each output channel, in
    float64, its bias follows (one is added where there is none), and the normalisation goes.

    Left alone: normalisations in training mode, with parameters that are computed, or of a variance
    that is not positive; layers whose weight or bias others use as well, is computed or an input of
    the model; layers whose output goes elsewhere too.

    Example:
        >>> FoldBatchNorm()(model)  # doctest: +SKIP
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes ``model`` in place."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
                modified |= _fold(model, node)
        return ir.passes.PassResult(model, modified=modified)


def _fold(model: ir.Model, norm: ir.Node) -> bool:
    layer = _layer_before(norm)
    scale_and_shift = _scale_and_shift(norm)
    if layer is None or scale_and_shift is None:
        return False
    scale, shift = scale_and_shift
    weight = constant_input(layer, 1)
    array = np.asarray(constant_of(weight))
    scaled = _scaled(layer, array, scale)
    bias = constant_of(layer.inputs[2]) if len(layer.inputs) > 2 else None
    factor = layer.attributes.get("beta")
    old = 0.0 if bias is None else bias.astype(np.float64)
    new = (old * (1.0 if factor is None else factor.as_float())) * scale + shift
    set_constant(weight, scaled.astype(array.dtype))
    if bias is None:
        name = f"{weight.name}.bias"
        add_initializer(model, layer, 2, np.asarray(new).astype(array.dtype), name)
    else:
        value = constant_input(layer, 2)
        set_constant(value, np.asarray(new).astype(bias.dtype))
        value.shape = ir.Shape(np.shape(new))
    layer.attributes.pop("beta", None)
    _take_over(model.graph, layer.outputs[0], norm)
    return True


def _layer_before(norm: ir.Node) -> ir.Node | None:
    """The layer that alone makes what ``norm`` takes, if it can be changed."""
    given = norm.inputs[0]
    layer = given.producer() if given is not None else None
    if given is None or layer is None or layer.graph is not norm.graph:
        return None
    if layer.op_type not in ("Conv", "ConvTranspose", "Gemm") or layer.domain != norm.domain:
        return None
    if len(given.uses()) != 1 or given.is_graph_output():
        return None
    for value in layer.inputs[1:]:
        if value is not None and (constant_of(value) is None or len(value.uses()) > 1):
            return None
        if value is not None and (value.is_graph_output() or not value.is_initializer()):
            return None
    return layer


def _scale_and_shift(norm: ir.Node) -> tuple[Floats, Floats] | None:
    """What ``norm`` multiplies by and adds, float64 (channels,)."""
    arrays = [constant_of(value) for value in norm.inputs[1:]]
    if integer(norm, "training_mode", 0) or not unused(norm.outputs[1:]):
        return None
    if any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array).astype(np.float64) for array in arrays)
    attribute = norm.attributes.get("epsilon")
    variance = variance + (1e-5 if attribute is None else attribute.as_float())
    if not (variance > 0).all():
        return None
    scale = gamma / np.sqrt(variance)
    shift = beta - mean * scale
    return (scale, shift) if np.isfinite([scale, shift]).all() else None


def _scaled(layer: ir.Node, weight: npt.NDArray[np.generic], scale: Floats) -> Floats:
    """The weight with each output channel multiplied."""
    values = weight.astype(np.float64)
    if layer.op_type == "ConvTranspose":
        group = integer(layer, "group", 1)
        parts = values.reshape(group, -1, *values.shape[1:])
        factors = scale.reshape(group, 1, -1, *[1] * (values.ndim - 2))
        return np.asarray((parts * factors).reshape(values.shape))
    axis = 1 if layer.op_type == "Gemm" and not integer(layer, "transB", 0) else 0
    return np.asarray(values * scale.reshape([-1 if a == axis else 1 for a in range(values.ndim)]))


def _take_over(graph: ir.Graph, output: ir.Value, norm: ir.Node) -> None:
    """``output`` takes the place, name and type of the output of ``norm``, which goes."""
    replaced, parameters = norm.outputs[0], norm.inputs[1:]
    name, kind, shape = replaced.name, replaced.type, replaced.shape
    replaced.replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    output.name, output.type, output.shape = name, kind, shape
    for value in parameters:
        if value is not None and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name), None)
