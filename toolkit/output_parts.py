# SPDX-License-Identifier: Apache-2.0
"""What an output is put together from, so that each part can be judged by itself.

A detector joins boxes in pixels and class scores between 0 and 1 in one output: a ratio over all of
it sees the boxes only. And behind a Sigmoid most values are close to 0, where neither the damage to
a score nor, on inputs without an object, any score is left to see. So the values are looked at
where they are made: before a Concat, and before a Sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_PASSED = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Dropout"}
)
"""Operators that only rearrange their first input."""

_AFFINE = frozenset(
    {
        "MatMul",
        "Gemm",
        "Conv",
        "ConvTranspose",
        "LSTM",
        "GRU",
        "RNN",
        "LayerNormalization",
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
    }
)
"""Operators whose results are no probabilities, even where all of them happen to lie between 0 and
1."""

BEFORE_SIGMOID = " before Sigmoid"
"""How the key of such a part ends."""

MAX_PARTS = 32
"""Outputs of more parts are judged as a whole."""


@dataclass(frozen=True)
class Part:
    """One value that an output is made of; ``before_sigmoid`` where a Sigmoid follows it."""

    output: str
    index: int
    value: ir.Value
    before_sigmoid: bool

    @property
    def key(self) -> str:
        """The part in words, the same for the same part of another file of the model."""
        place = BEFORE_SIGMOID if self.before_sigmoid else ""
        return f"{self.output}, part {self.index + 1}{place}"


def output_parts(graph: ir.Graph) -> dict[str, list[Part]]:
    """The parts of those outputs that are joined by Concat or made by Sigmoid, by output name."""
    found: dict[str, list[Part]] = {}
    for output in graph.outputs:
        name = output.name or ""
        parts = list(_parts(output, False))
        joined = len(parts) > 1 or any(squashed for _, squashed in parts)
        if joined and len(parts) <= MAX_PARTS:
            found[name] = [
                Part(name, index, value, squashed) for index, (value, squashed) in enumerate(parts)
            ]
    return found


def affine_outputs(graph: ir.Graph) -> set[str]:
    """Names of the outputs that a layer gives as they are, or with a bias or another layer's
    result added."""
    return {output.name or "" for output in graph.outputs if _is_affine(output)}


def _rearranged(value: ir.Value) -> ir.Value:
    """The floats that ``value`` only shows in another arrangement."""
    node = value.producer()
    while node is not None and not node.domain and node.op_type in _PASSED:
        first = node.inputs[0]
        if first is None or not _is_float(first):
            break
        value, node = first, first.producer()
    return value


def _is_affine(value: ir.Value) -> bool:
    node = _rearranged(value).producer()
    if node is None or node.domain:
        return False
    if node.op_type not in ("Add", "Sub"):
        return node.op_type in _AFFINE
    terms = [term.producer() for term in node.inputs if term is not None]
    return any(t is not None and not t.domain and t.op_type in _AFFINE for t in terms)


def judged_floats(graph: ir.Graph) -> list[str]:
    """Names of the float32 values by which outputs are judged: their parts, what a Softmax makes
    probabilities of, or the outputs themselves."""
    import onnx_ir as ir

    parts = output_parts(graph)
    found: list[ir.Value] = []
    for output in graph.outputs:
        own = [part.value for part in parts.get(output.name or "", [])] or [output]
        found += [_before_softmax(value) for value in own]
    return [
        str(value.name)
        for value in dict.fromkeys(found)
        if value.producer() is not None and value.dtype in (None, ir.DataType.FLOAT)
    ]


def _before_softmax(value: ir.Value) -> ir.Value:
    node = _rearranged(value).producer()
    if node is None or node.domain or node.op_type not in ("Softmax", "LogSoftmax"):
        return value
    return node.inputs[0] or value


def _parts(value: ir.Value, squashed: bool) -> Iterator[tuple[ir.Value, bool]]:
    """The computed values behind ``value``, in the order of their Concats."""
    value = _rearranged(value)
    node = value.producer()
    if node is None:  # an input or a constant: nothing of the model's doing
        return
    if not node.domain and node.op_type == "Concat":
        for part in node.inputs:
            if part is not None:
                yield from _parts(part, squashed)
    elif not node.domain and node.op_type == "Sigmoid" and not squashed and node.inputs[0]:
        yield from _parts(node.inputs[0], True)
    else:
        yield value, squashed


def _is_float(value: ir.Value) -> bool:
    """Whether ``value`` holds floats, as far as is known."""
    return value.dtype is None or value.dtype.is_floating_point()
