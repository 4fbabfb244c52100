# SPDX-License-Identifier: Apache-2.0
"""How much an error in each output of a layer shows in the outputs of the model.

The mean square of the gradient of the model's outputs with respect to each output of the layer:
the factor of the outputs in a Kronecker-factored approximation of the curvature (J. Martens,
R. Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature", ICML 2015,
section 3), of squared errors of the model's outputs, estimated with random signs (M. Hutchinson,
"A stochastic estimator of the trace of the influence matrix", 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from passes.activations import Activations
from passes.channels.groups import inferred_shapes
from passes.gradients import with_gradients
from passes.gradients.tape import Tape
from passes.schemes.moments import Moments
from passes.select_weights import select_weights, weight_uses

_CHANNELS = {"Conv": 1, "Gemm": -1, "MatMul": -1}
"""The axis of a layer's output along which its outputs lie."""
_LEAST = 0.1
"""Of the mean: units that calibration leaves asleep wake up where errors are large, and on other
data."""


@dataclass(frozen=True)
class _Layer:
    weight: str
    output: str
    axis: int


def measure_output_importance(
    activations: Activations, model: ir.Model, names: Sequence[str], judged: Sequence[str]
) -> dict[str, np.ndarray]:
    """How much squared errors of each output of a layer count, by weight.

    Args:
        activations: Runs the model on calibration data.
        model: Not changed. Ranks of values must be known where they enter Conv or MatMul.
        names: The weights'. Those count whose only use is as second operand of Conv, Gemm or
            MatMul in the main graph.
        judged: Names of float32 values of the main graph in which errors count, each in relation to
            its own size.

    Returns:
        float32 [outputs], of mean 1, none much below a tenth. Weights are left out whose layers do
        not reach ``judged``, or through operators whose gradient is not known.
    """
    copy = model.clone()
    layers = _layers(copy, set(names))
    tape = Tape(copy.graph)
    values = {str(v.name): v for node in copy.graph for v in node.outputs}
    seeds = {name: _signs(tape, values[name], place) for place, name in enumerate(judged)}
    with inferred_shapes(copy):
        gradients = with_gradients(copy, [layer.output for layer in layers], seeds)
    values = {str(v.name): v for node in copy.graph for v in node.outputs}
    asked = {
        layer.weight: _energy(tape, values[gradients[layer.output]], layer.axis)
        for layer in layers
        if layer.output in gradients
    }
    sums: dict[str, np.ndarray] = dict.fromkeys(asked, np.zeros(()))
    if asked:
        for run in activations(copy, [str(value.name) for value in asked.values()]):
            for weight, value in asked.items():
                sums[weight] = sums[weight] + run[str(value.name)].astype(np.float64)
    found = {}
    for weight, energy in sums.items():
        mean = float(np.mean(energy))
        if np.isfinite(energy).all() and mean > 0:
            least = np.maximum(energy / mean, _LEAST)
            found[weight] = (least / least.mean()).astype(np.float32)
    return found


def with_outputs(moments: Moments, importance: np.ndarray) -> Moments:
    """``moments`` with the importance of a layer's outputs, [groups * outputs] or, the same for all
    groups, [outputs]."""
    groups, _, outputs = moments.layout.matrix_shape
    if importance.size not in (groups * outputs, outputs):
        return moments
    rows = importance.reshape(-1, outputs)
    return replace(moments, outputs=np.ascontiguousarray(np.broadcast_to(rows, (groups, outputs))))


def _layers(model: ir.Model, names: set[str]) -> list[_Layer]:
    found = []
    for weight in select_weights(model):
        uses = weight_uses(model, weight.value) if weight.name in names else []
        if len(uses) != 1 or uses[0].index != 1 or uses[0].node.graph is not model.graph:
            continue
        node = uses[0].node
        axis = _CHANNELS.get(node.op_type)
        if axis is not None and node.domain in ("", "ai.onnx"):
            found.append(_Layer(weight.name, str(node.outputs[0].name), axis))
    return found


def _signs(tape: Tape, value: ir.Value, seed: int) -> ir.Value:
    """Random signs of the shape of a value, over its root mean square."""
    signs = tape.op("Sign", tape.op("RandomNormalLike", value, seed=float(seed + 1)))
    power = tape.op("ReduceMean", tape.op("Mul", value, value), keepdims=0)
    least = tape.number(float(np.finfo(np.float32).tiny))
    return tape.op("Div", signs, tape.op("Sqrt", tape.op("Add", power, least)))


def _energy(tape: Tape, gradient: ir.Value, axis: int) -> ir.Value:
    """Sums of squares along all axes but one, float [size of that axis]."""
    square = tape.op("Mul", gradient, gradient)
    size = tape.op("Gather", tape.shape(square), tape.constant([axis]))
    if axis == -1:
        flat = tape.op("Reshape", square, tape.op("Concat", tape.constant([-1]), size, axis=0))
        return tape.op("ReduceSum", flat, tape.constant([0]), keepdims=0)
    lead = tape.op("Gather", tape.shape(square), tape.constant([0]))
    three = tape.op("Concat", lead, size, tape.constant([-1]), axis=0)
    return tape.op(
        "ReduceSum", tape.op("Reshape", square, three), tape.constant([0, 2]), keepdims=0
    )
