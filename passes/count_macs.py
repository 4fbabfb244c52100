# SPDX-License-Identifier: Apache-2.0
"""How large a model is: its parameters, and the multiplications with weights that one run takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod

import onnx_ir as ir

from passes.channels.groups import inferred_shapes
from passes.channels.trace import constant_of, dims_of

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RECURRENT = ("LSTM", "GRU", "RNN")


def count_macs(model: ir.Model, inputs: Mapping[str, tuple[int, ...]] | None = None) -> int:
    """Multiply-accumulates of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN with constant
    weights in the main graph, for one sample, or for ``inputs`` of these shapes by name. Dimensions
    that stay unknown before a run count as 1."""
    return count_work(model, inputs)[0]


def count_work(
    model: ir.Model, inputs: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[int, int]:
    """The multiply-accumulates of ``count_macs``, and the elements of all values that the nodes of
    the main graph compute."""
    with _given_shapes(model, inputs or {}), inferred_shapes(model):
        macs = values = 0
        for node in model.graph:
            if node.op_type in _LAYERS:
                macs += _macs(node)
            elif node.op_type in _RECURRENT:
                macs += _recurrent_macs(node)
            values += sum(_product(dims_of(output) or ()) for output in node.outputs)
        return macs, values


@contextmanager
def _given_shapes(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """Inside, the inputs of ``model`` have these shapes."""
    before = [(value, value.shape) for value in model.graph.inputs]
    try:
        for value, _ in before:
            if value.name in shapes:
                value.shape = ir.Shape(shapes[value.name])
        yield
    finally:
        for value, shape in before:
            value.shape = shape


def output_positions(model: ir.Model) -> dict[str, int]:
    """How often one run for one sample multiplies with each element of a weight: name of the
    initializer -> positions, of all layers of ``count_macs`` that use it together."""
    found: Counter[str] = Counter()
    with inferred_shapes(model):
        for node in model.graph:
            if node.op_type in _LAYERS and _macs(node):
                found[str(node.inputs[1].name)] += _positions(node)
    return dict(found)


def count_parameters(model: ir.Model) -> int:
    """Elements of the initializers of the main graph, single numbers and integers left out."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(
        int(tensor.size)
        for tensor in tensors
        if tensor is not None and tensor.size > 1 and tensor.dtype.is_floating_point()
    )


def _product(dims: Iterable[int | None]) -> int:
    """Of those that are known; some exporters write -1 for what they do not know."""
    return prod(d for d in dims if d is not None and d > 0)


def _macs(node: ir.Node) -> int:
    given, weight = node.inputs[0], node.inputs[1]
    if given is None or weight is None or constant_of(weight) is None:
        return 0
    # groups of a convolution are in its weight's shape
    return _product(dims_of(weight) or ()) * _positions(node)


def _recurrent_macs(node: ir.Node) -> int:
    """W and R of one direction after the other, for each step of each sequence."""
    given, *weights = node.inputs[:3]
    if given is None:
        return 0
    constant = [w for w in weights if w is not None and constant_of(w) is not None]
    steps = _product((dims_of(given) or ())[:2])
    return steps * sum(_product(dims_of(weight) or ()) for weight in constant)


def _positions(node: ir.Node) -> int:
    given, output = node.inputs[0], node.outputs[0]
    if node.op_type in ("Gemm", "MatMul"):
        return _product((dims_of(output) or ())[:-1])
    places = (dims_of(given if node.op_type == "ConvTranspose" else output) or ())[2:]
    return _product((*(dims_of(output) or ())[:1], *places))
