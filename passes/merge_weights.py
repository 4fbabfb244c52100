# SPDX-License-Identifier: Apache-2.0
"""Stores once the matrices that a model has several times, also turned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND"})

Array = npt.NDArray[Any]


@dataclass
class MergeResult(ir.passes.PassResult):
    """Result of `MergeWeights`.

    Attributes:
        merged: The initializers that are no longer there, with the one that each is made of.
    """

    merged: dict[str, str] = field(default_factory=dict)


class MergeWeights(ir.passes.InPlacePass):
    """Merges matrices with the same bits, as exporters write tied embeddings and shared layers.

    Rules:
      1. Of matrices of the main graph with the same type, shape and bits one is left.
      2. A floating point matrix that is another one turned becomes a Transpose of that.

    The one that is looked up in by rows is kept, else the first. Left alone: fewer than
    ``min_elements`` elements, a Transpose of fewer than 1,024, initializers that are graph inputs
    or outputs, those of subgraphs (`LiftWeights` brings them to the main graph); vectors and
    filters, which other passes change for one layer alone (`FoldBatchNorm`).
    """

    def __init__(self, min_elements: int = 16) -> None:
        super().__init__()
        self.min_elements = min_elements

    def call(self, model: ir.Model) -> MergeResult:
        """Changes ``model`` in place."""
        graph, merged = model.graph, dict[str, str]()
        kept: dict[Any, list[ir.Value]] = {}
        turned: dict[str, ir.Value] = {}
        for value in self._weights(graph):
            bits = _bits(value)
            name = str(value.name)
            for key, transpose in _keys(value, bits):
                first = next((v for v in kept.get(key, ()) if _equal(v, bits, transpose)), None)
                if first is None:
                    continue
                source = _turned(graph, first, turned) if transpose else first
                value.replace_all_uses_with(source)
                del graph.initializers[name]
                merged[name] = str(first.name)
                break
            else:
                kept.setdefault(_key(value, bits), []).append(value)
        return MergeResult(model, bool(merged), merged)

    def _weights(self, graph: ir.Graph) -> list[ir.Value]:
        """What may be merged, those first that are to be kept."""
        found = [
            value
            for value in graph.initializers.values()
            if value.const_value is not None
            and len(value.const_value.shape) == 2
            and value.const_value.size >= self.min_elements
            and value.const_value.dtype.itemsize in _BITS
            and not value.is_graph_input()
            and not value.is_graph_output()
        ]
        return sorted(found, key=lambda value: not _is_looked_up(value))


def _is_looked_up(value: ir.Value) -> bool:
    return any(use.node.op_type in _LOOKUPS and use.idx == 0 for use in value.uses())


def _bits(value: ir.Value) -> Array:
    assert value.const_value is not None
    array = value.const_value.numpy()
    return np.ascontiguousarray(array).view(_BITS[array.itemsize]).reshape(array.shape)


def _key(value: ir.Value, bits: Array, transpose: bool = False) -> Any:
    """Equal of weights that may be the same: a few of their elements tell most apart."""
    assert value.const_value is not None
    bits = bits.T if transpose else bits
    rows, columns = bits.shape
    places = ((0, 0), (-1, -1), (0, -1), (-1, 0), (rows // 2, columns // 3))
    return value.const_value.dtype, bits.shape, tuple(int(bits[place]) for place in places)


def _keys(value: ir.Value, bits: Array) -> Iterator[tuple[Any, bool]]:
    """Where a weight like this one is found, and whether it is then that one turned."""
    yield _key(value, bits), False
    assert value.const_value is not None
    if bits.size >= 1024 and value.const_value.dtype in _FLOATS:
        yield _key(value, bits, transpose=True), True


def _equal(kept: ir.Value, bits: Array, transpose: bool) -> bool:
    return np.array_equal(_bits(kept), bits.T if transpose else bits)


def _turned(graph: ir.Graph, value: ir.Value, made: dict[str, ir.Value]) -> ir.Value:
    """The output of a Transpose of a weight, one for all that want it."""
    name = str(value.name)
    if name not in made:
        node = ir.node("Transpose", [value], {"perm": [1, 0]})
        output = node.outputs[0]
        taken = set(graph.initializers) | {v.name for n in graph for v in n.outputs}
        taken |= {v.name for v in graph.inputs}
        output.name = next(
            wanted
            for number in range(len(taken) + 1)
            if (wanted := f"{name}.turned{number or ''}") not in taken
        )
        output.type = value.type
        first = next(iter(graph), None)
        if first is None:
            graph.append(node)
        else:
            graph.insert_before(first, node)
        made[name] = output
    return made[name]
