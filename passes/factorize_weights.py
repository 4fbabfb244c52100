# SPDX-License-Identifier: Apache-2.0
"""Keeps the factors of low-rank weights in the graph where computing with them is cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from passes.errors import ModelError, SchemeError
from passes.factor_layers import FactorLayers, factor_layers
from passes.lift_weights import values_of
from passes.schemes import (
    FitContext,
    LowRank,
    LowRankParameters,
    Parameters,
    Tucker,
    TuckerParameters,
)
from passes.select_weights import Weight, select_weights

_SUFFIXES = {2: ("left", "right"), 3: ("last", "core", "first")}


@dataclass(frozen=True)
class FactorizedWeight:
    """A weight whose factors are weights of the graph now.

    Attributes:
        name: Of the weight, which is gone.
        factors: Names of the new initializers.
        before, after: Multiply-accumulates of its layers: for one inference where the shapes are
            known (a batch of unknown size counts as 1), else for one output position.
    """

    name: str
    factors: tuple[str, ...]
    before: float
    after: float


@dataclass
class FactorizeResult(ir.passes.PassResult):
    """The pass's result.

    Attributes:
        plan: For EncodeWeights: parameters of the new factors, and of the weights that are to be
            rebuilt from theirs. A factor may be given other settings instead.
        factorized: What was replaced.
        notes: What was left alone, and why.
    """

    plan: dict[str, Parameters] = field(default_factory=dict)
    factorized: tuple[FactorizedWeight, ...] = ()
    notes: tuple[str, ...] = ()


class FactorizeWeights(ir.passes.InPlacePass):
    """Replaces layers by two or three layers with the factors of their weight.

    Rules, for each weight of ``plan``, which holds fitted parameters or the scheme to fit:
      1. MatMul and Gemm with a low-rank weight become two of them.
      2. Conv becomes a Conv with ``rank`` filters and a 1 x 1 Conv (reshape out_in), a k x 1 and a
         1 x k Conv (reshape spatial), or a 1 x 1 Conv, the core and a 1 x 1 Conv (Tucker).
      3. Only where each use of the weight takes fewer multiply-accumulates than before.
         Shapes come from the graph or from ONNX's shape inference; without them it is counted for
         each output position.

    Any other weight (grouped Conv, ConvTranspose, LSTM, Gather, a weight behind a Transpose, rank
    0) stays, and ``plan`` of the result tells EncodeWeights to rebuild it from its factors.

    Left alone, with a note: weights that a scheme refuses, integers, graph inputs and outputs.

        factors = passes.FactorizeWeights({"conv1.weight": LowRank(energy=0.9)})(model)
        passes.EncodeWeights(factors.plan)(model)
    """

    def __init__(
        self, plan: Mapping[str, LowRank | Tucker | LowRankParameters | TuckerParameters]
    ) -> None:
        super().__init__()
        self.plan = dict(plan)

    def call(self, model: ir.Model) -> FactorizeResult:
        """Changes ``model`` in place; ModelError for a name that is no initializer, or parameters
        of another shape or type."""
        weights = {weight.name: weight for weight in select_weights(model)}
        result, opset = FactorizeResult(model, False), model.opset_imports.get("", 13)
        notes, factorized = list[str](), list[FactorizedWeight]()
        taken = {v.name for graph in model.graphs() for v in values_of(graph)}
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
        for name, entry in self.plan.items():
            if name not in model.graph.initializers:
                raise ModelError(f"weight {name!r}: the model has no such initializer")
            weight = weights.get(name)
            if weight is None or weight.role == "integer":
                notes.append(f"{name}: left alone: integers, a graph input or output, or unused")
                continue
            try:
                fitted = _fitted(weight, entry)
            except SchemeError as error:
                notes.append(f"{name}: left alone: {error}")
                continue
            layers = _layers(weight, fitted, opset)
            if layers is None:
                result.plan[name] = fitted
                continue
            factors = _factors(model.graph, weight, fitted, taken)
            for node, replacement in layers:
                _replace(node, replacement.build(factors))
            del model.graph.initializers[name]
            parts = zip(factors, fitted.children(), strict=True)
            result.plan |= {value.name or "": part for value, part in parts}
            result.modified = True
            factorized.append(
                FactorizedWeight(
                    name,
                    tuple(value.name or "" for value in factors),
                    sum(replacement.before for _, replacement in layers),
                    sum(replacement.after for _, replacement in layers),
                )
            )
        result.factorized, result.notes = tuple(factorized), tuple(notes)
        return result


def _fitted(
    weight: Weight, entry: LowRank | Tucker | LowRankParameters | TuckerParameters
) -> LowRankParameters | TuckerParameters:
    if isinstance(entry, LowRank | Tucker):
        return entry.fit(weight.array(), FitContext(channel_axis=weight.channel_axis))
    if entry.shape != weight.shape or entry.dtype != weight.dtype.numpy():
        raise ModelError(
            f"weight {weight.name!r}: expected parameters for {weight.dtype.numpy()} "
            f"{weight.shape}, found {entry.dtype} {entry.shape}"
        )
    return entry


def _layers(
    weight: Weight, fitted: Parameters, opset: int
) -> list[tuple[ir.Node, FactorLayers]] | None:
    """The replacement of each use; None where one has none or its arithmetic does not become
    less."""
    found = []
    for node, index in weight.value.uses():
        replacement = factor_layers(node, index, fitted, opset)
        if replacement is None or sum(value is weight.value for value in node.inputs) > 1:
            return None
        if replacement.after >= replacement.before:
            return None
        found.append((node, replacement))
    return found


def _factors(
    graph: ir.Graph, weight: Weight, fitted: Parameters, taken: set[str | None]
) -> list[ir.Value]:
    """New initializers with what the factors decode to."""
    parts, values = fitted.children(), []
    for part, suffix in zip(parts, _SUFFIXES[len(parts)], strict=True):
        name, number = f"{weight.name}.{suffix}", 0
        while name in taken:
            number += 1
            name = f"{weight.name}.{suffix}_{number}"
        taken.add(name)
        tensor = ir.Tensor(part.decode(), name=name)
        value = ir.Value(
            name=name,
            const_value=tensor,
            shape=ir.Shape(part.shape),
            type=ir.TensorType(weight.dtype),
        )
        graph.register_initializer(value)
        values.append(value)
    return values


def _replace(node: ir.Node, nodes: list[ir.Node]) -> None:
    """Puts ``nodes`` in the place of ``node``, in whichever graph it is."""
    if node.graph is None:
        raise ModelError(f"node {node.name!r} belongs to no graph")
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], nodes, node.outputs, nodes[-1].outputs
    )
