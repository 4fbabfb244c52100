# SPDX-License-Identifier: Apache-2.0
"""Biases that take up the mean of the error which a compressed weight makes in its layer's output.

M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV
2019, section 4.2, with the means of the layer's inputs measured on data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.schemes.moments import Moments, RowUse
from passes.select_weights import WeightUse, select_weights, weight_uses


@dataclass(frozen=True)
class BiasPlace:
    """Where the mean error of a weight's outputs can be made up for.

    Attributes:
        bias: Name of the initializer, which nothing else uses.
        start: Index along its last axis at which this weight's outputs begin.
        rows: The bias' leading size: directions of a recurrent layer, else 1.
    """

    bias: str
    start: int = 0
    rows: int = 1


def bias_places(model: ir.Model, names: Collection[str]) -> dict[str, BiasPlace]:
    """The biases of the weights in ``names``, by weight.

    Found for Conv, Gemm of factors 1, LSTM, GRU, and MatMul whose product goes only to an Add with
    an initializer. Left out: weights with several uses, and biases with several uses or of a shape
    that does not hold one number for each output.
    """
    found = {}
    for weight in select_weights(model):
        uses = weight_uses(model, weight.value) if weight.name in names else []
        if len(uses) != 1 or uses[0].axes is None or uses[0].node.graph is not model.graph:
            continue
        rule = {"Conv": _third, "Gemm": _gemm, "MatMul": _added, "LSTM": _gates, "GRU": _gates}.get(
            uses[0].node.op_type
        )
        shape = tuple(weight.shape[axis] for axis in uses[0].axes)
        place = rule(uses[0], shape) if rule is not None else None
        if place is not None and _is_own(model, place.bias):
            found[weight.name] = place
    return found


def bias_changes(
    places: Mapping[str, BiasPlace],
    errors: Iterable[tuple[str, np.ndarray]],
    moments: Mapping[str, Moments | RowUse],
    biases: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The biases with what ``errors``, original less decoded weights, miss in the mean.

    Args:
        places: By weight.
        errors: Weights and theirs, float32 of the weight's shape; one is looked at after the other,
            so that they need not be held all at once.
        moments: By weight; those without are left out.
        biases: Original biases by name.

    Returns:
        Changed biases by name, of their own type.
    """
    sums: dict[str, np.ndarray] = {}
    for name, error in errors:
        known, place = moments.get(name), places.get(name)
        if place is None or not isinstance(known, Moments):
            continue
        matrix = known.layout.matrix(np.asarray(error, np.float32))
        missed = np.einsum("gfo,gf->go", matrix, known.means, dtype=np.float64)
        bias = sums.setdefault(place.bias, biases[place.bias].astype(np.float64))
        width = missed.size // place.rows
        rows = bias.reshape(place.rows, -1)
        rows[:, place.start : place.start + width] += missed.reshape(place.rows, width)
    return {name: value.astype(biases[name].dtype) for name, value in sums.items()}


def _third(use: WeightUse, shape: tuple[int, ...]) -> BiasPlace | None:
    return _constant(use.node, 2, shape[0]) if use.index == 1 else None


def _gemm(use: WeightUse, shape: tuple[int, ...]) -> BiasPlace | None:
    node = use.node
    factors = [node.attributes.get(name) for name in ("alpha", "beta")]
    if use.index != 1 or any(factor is not None and factor.as_float() != 1 for factor in factors):
        return None
    flipped = node.attributes.get("transB")
    is_flipped = flipped is not None and bool(flipped.as_int())
    return _constant(node, 2, shape[0 if is_flipped else 1])


def _added(use: WeightUse, shape: tuple[int, ...]) -> BiasPlace | None:
    product = use.node.outputs[0]
    users = list(product.uses())
    if use.index != 1 or len(shape) != 2 or len(users) != 1 or product.is_graph_output():
        return None
    node, index = users[0].node, users[0].idx
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return None
    return _constant(node, 1 - index, shape[1])


def _gates(use: WeightUse, shape: tuple[int, ...]) -> BiasPlace | None:
    """The first half of a recurrent layer's bias belongs to the inputs, the second to the states.

    Of a GRU without `linear_before_reset` the second half's new gate stands outside of the reset:
    the mean of what the state is multiplied with there is not that of the state."""
    node = use.node
    reset = node.attributes.get("linear_before_reset")
    inside = node.op_type != "GRU" or (reset is not None and bool(reset.as_int()))
    if use.index not in (1, 2) or len(shape) != 3 or use.index == 2 and not inside:
        return None
    place = _constant(node, 3, 2 * shape[0] * shape[1])
    return None if place is None else BiasPlace(place.bias, (use.index - 1) * shape[1], shape[0])


def _constant(node: ir.Node, index: int, count: int) -> BiasPlace | None:
    """The initializer at an input, where it has ``count`` elements along its last axes."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    shape = tuple(value.const_value.shape)
    dims = [int(dim) for dim in shape if isinstance(dim, int)]
    vector = len(dims) == 1 or all(dim == 1 for dim in dims[:-1]) or node.op_type in ("LSTM", "GRU")
    size = int(np.prod(dims)) if dims else 0
    return BiasPlace(str(value.name)) if vector and size == count else None


def _is_own(model: ir.Model, name: str) -> bool:
    value = model.graph.initializers.get(name)
    if value is None or value.const_value is None or value.is_graph_output():
        return False
    return len(list(value.uses())) == 1 and value.const_value.dtype in (
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
    )
