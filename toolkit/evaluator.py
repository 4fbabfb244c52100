# SPDX-License-Identifier: Apache-2.0
"""Runs a model again and again with other values of its weights.

A session per candidate would parse, fold and pack all weights each time. Here the weights are
taken out of the graph and become its inputs, so one small session serves every candidate and a run
costs what a run of the model costs (MiniLM: 0.03 s to create, the same time per run, 2e-6 apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.ort_session import quiet_options

if TYPE_CHECKING:
    import onnx_ir as ir

Values = Mapping[str, npt.NDArray[Any]]


class Evaluator:
    """A model whose weights are given at each run.

    `model` is consumed: the weights in `values` leave it. `weights` maps the name under which a
    weight is given to its `ir.Value`, in the main graph or in a subgraph. `observed` are values of
    the main graph that are given out beside the outputs, by the keys there.
    """

    def __init__(
        self,
        model: ir.Model,
        weights: Mapping[str, ir.Value],
        threads: int = 0,
        observed: Mapping[str, ir.Value] | None = None,
    ) -> None:
        import onnxruntime

        self._input_of: dict[str, str] = {}
        taken = {value.name for value in model.graph.inputs} | set(model.graph.initializers)
        for index, (name, value) in enumerate(weights.items()):
            owner = value.graph
            if owner is not None and value.name is not None and value.name in owner.initializers:
                del owner.initializers[value.name]
            if owner is not model.graph and (value.name in taken or not value.name):
                value.name = f"weight_input_{index}"
            value.const_value = None
            model.graph.inputs.append(value)
            taken.add(value.name)
            self._input_of[name] = str(value.name)
        self._names = {str(output.name): str(output.name) for output in model.graph.outputs}
        self._observed = frozenset(observed or ())
        for key, value in (observed or {}).items():
            if value not in model.graph.outputs:
                model.graph.outputs.append(value)
            self._names[key] = str(value.name)
        options = quiet_options(threads)
        options.enable_cpu_mem_arena = True  # holds no weights; each run asks for the same again
        self._session = onnxruntime.InferenceSession(
            _serialized(model), options, providers=["CPUExecutionProvider"]
        )

    def run(self, values: Values, feeds: Sequence[Feed]) -> list[dict[str, Any]]:
        """Outputs by name, and observed values by key, for each feed, with the weights in `values`
        (all of them)."""
        given = {self._input_of[name]: runtime_value(array) for name, array in values.items()}
        results = []
        for feed in feeds:
            outputs = self._session.run(list(self._names.values()), {**feed, **given})
            results.append(dict(zip(self._names, outputs, strict=True)))
        return results

    def outputs(self, values: Values, feed: Feed) -> dict[str, Any]:
        """The model's own outputs by name for one feed."""
        found = self.run(values, [feed])[0]
        return {name: value for name, value in found.items() if name not in self._observed}


def _serialized(model: ir.Model) -> bytes:
    import onnx_ir as ir

    return bytes(ir.to_proto(model).SerializeToString())


def runtime_value(array: npt.NDArray[Any]) -> Any:
    """The array itself, or an OrtValue for types that numpy has only through ml_dtypes."""
    if array.dtype.kind != "V" and array.dtype.name != "bfloat16":
        return array
    import onnx
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        np.ascontiguousarray(array).view(np.uint16), int(onnx.TensorProto.BFLOAT16)
    )


def irreproducible(
    first: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Names of outputs that differ between two runs of the same model on the same feeds."""
    from toolkit.fidelity import compare_outputs

    fidelity = compare_outputs(first, again)
    return [output.name for output in fidelity.outputs if output.sqnr_db < 60.0]
