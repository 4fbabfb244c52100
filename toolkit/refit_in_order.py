# SPDX-License-Identifier: Apache-2.0
"""Fits the layers of a model once more, one after the other, each to the inputs that it gets from
the compressed layers before it (E. Frantar et al., "GPTQ", ICLR 2023, section 4, "setup")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.capture_activations import CapturedActivations
from toolkit.fitting import CalibratedFitting

if TYPE_CHECKING:
    import onnx_ir as ir

    from passes.schemes import Moments, RowUse
    from toolkit.pipeline import Source
    from toolkit.prepare_model import Prepared

Values = dict[str, npt.NDArray[Any]]


def refit_in_order(
    source: Source,
    prepared: Prepared,
    steps: Mapping[str, float],
    threads: int,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[CalibratedFitting, Values]:
    """Another fitting at the same `steps`, and the values of all weights under it.

    Its moments are those of the last inputs, of which only the diagonal is left. The fitting of
    `prepared` is not changed. Raises TypeError for one without calibration.
    """
    from passes.moments import measure_moments

    first = prepared.fitting
    if not isinstance(first, CalibratedFitting):
        raise TypeError("layers are fitted in order by their inputs: calibration is needed")
    known: dict[str, Moments | RowUse] = dict(first.moments)
    fitting = first.with_moments(known)
    activations = CapturedActivations(prepared.fitted, threads)
    groups = layers_in_order(source, [name for name in steps if _is_full(known.get(name))])
    refitted = {name for group in groups for name in group}
    rest = {name: step for name, step in steps.items() if name not in refitted}
    values: Values = dict(fitting.values(prepared.arrays, rest, draft=False))
    for number, group in enumerate(groups, 1):
        progress(f"layer {number} of {len(groups)}: {group[0]}")
        for part in measure_moments(activations, _with(source.model, values), group):
            known |= {name: _counted(new, known.get(name)) for name, new in part.found.items()}
        mine = {name: steps[name] for name in group}
        values |= fitting.values(prepared.arrays, mine, draft=False)
        for name in group:
            known[name] = _narrowed(known[name])
    return fitting, fitting.values(prepared.arrays, steps, draft=False)


def layers_in_order(source: Source, names: Sequence[str]) -> list[list[str]]:
    """Weights in the order in which the model uses them, those of the same input together."""
    from passes.select_weights import weight_uses

    places = {node: place for place, node in enumerate(source.model.graph)}
    found: list[tuple[int, str, str]] = []
    for name in names:
        used = [
            (places[use.node], use)
            for use in weight_uses(source.model, source.weights[name].value)
            if use.node in places
        ]
        if not used:
            continue
        place, use = min(used, key=lambda entry: entry[0])
        other = use.node.inputs[1 - use.index if use.node.op_type == "MatMul" else 0]
        found.append((place, "" if other is None else str(other.name), name))
    groups: dict[str, list[str]] = {}
    for _, given, name in sorted(found):
        groups.setdefault(given, []).append(name)
    return list(groups.values())


def _with(model: ir.Model, values: Mapping[str, npt.NDArray[Any]]) -> ir.Model:
    """A copy of `model` with other values of some initializers."""
    import onnx_ir as ir

    copy = model.clone()
    for name, array in values.items():
        copy.graph.initializers[name].const_value = ir.Tensor(
            np.ascontiguousarray(array), name=name
        )
    return copy


def _counted(moments: Moments | RowUse, before: Moments | RowUse | None) -> Moments | RowUse:
    """New moments with what errors of the outputs counted before."""
    from passes.schemes import Moments

    if isinstance(moments, Moments) and isinstance(before, Moments):
        return replace(moments, outputs=before.outputs)
    return moments


def _is_full(moments: Moments | RowUse | None) -> bool:
    from passes.schemes import Moments

    return isinstance(moments, Moments) and moments.is_full


def _narrowed(moments: Moments | RowUse) -> Moments | RowUse:
    """Without what is as large as the square of the features."""
    from passes.schemes import Moments

    if not isinstance(moments, Moments):
        return moments
    powers = moments.powers.astype(np.float32)
    return replace(moments, inputs=powers, means=np.array(moments.means))
