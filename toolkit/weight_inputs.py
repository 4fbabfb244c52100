# SPDX-License-Identifier: Apache-2.0
"""Makes inputs of a model's weights, so that a session does not hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir


def make_inputs(model: ir.Model, weights: Mapping[str, ir.Value]) -> dict[str, str]:
    """Takes initializers of the main graph or of subgraphs out of `model`, which becomes their
    inputs; returns the names of those by the keys of `weights`."""
    taken = {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    names: dict[str, str] = {}
    for index, (key, value) in enumerate(weights.items()):
        owner = value.graph
        if owner is not None and value.name is not None and value.name in owner.initializers:
            del owner.initializers[value.name]
        if owner is not model.graph and (value.name in taken or not value.name):
            value.name = f"weight_input_{index}"
        value.const_value = None
        model.graph.inputs.append(value)
        taken.add(value.name)
        names[key] = str(value.name)
    return names


def runtime_value(array: npt.NDArray[Any]) -> Any:
    """The array itself, or an OrtValue for types that numpy has only through ml_dtypes."""
    if array.dtype.kind != "V" and array.dtype.name != "bfloat16":
        return array
    import onnx
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        np.ascontiguousarray(array).view(np.uint16), int(onnx.TensorProto.BFLOAT16)
    )
