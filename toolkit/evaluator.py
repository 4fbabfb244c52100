# SPDX-License-Identifier: Apache-2.0
"""Runs a model again and again with other values of its weights.

A session per candidate would parse, fold and pack all weights each time. Here the weights are
taken out of the graph and become its inputs, so one small session serves every candidate and a run
costs what a run of the model costs (MiniLM: 0.03 s to create, the same time per run, 2e-6 apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.ort_session import quiet_options, session_of
from toolkit.weight_inputs import make_inputs, runtime_value

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
        self._input_of = make_inputs(model, weights)
        self._names = {str(output.name): str(output.name) for output in model.graph.outputs}
        self._observed = frozenset(observed or ())
        for key, value in (observed or {}).items():
            if value not in model.graph.outputs:
                model.graph.outputs.append(value)
            self._names[key] = str(value.name)
        options = quiet_options(threads)
        options.enable_cpu_mem_arena = True  # holds no weights; each run asks for the same again
        self._session = session_of(model, options)

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


def irreproducible(
    first: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Names of outputs that differ between two runs of the same model on the same feeds."""
    from toolkit.fidelity import compare_outputs

    fidelity = compare_outputs(first, again)
    return [output.name for output in fidelity.outputs if output.sqnr_db < 60.0]
