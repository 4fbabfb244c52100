# SPDX-License-Identifier: Apache-2.0
"""A plain torch model as an ONNX graph: torch's own exporter, then nothing that can be left out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from passes.lift_weights import LiftWeights
from passes.simplify_nodes import SimplifyNodes
from toolkit.errors import InputError, one_line

OPSET = 21
"""The first in which DequantizeLinear takes int16 symbols."""


def graph_of(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    opset: int = OPSET,
) -> ir.Model:
    """The ONNX graph of a plain model in evaluation mode; initializers have the names of the state
    dict.

    Args:
        model: Without parametrizations.
        example_inputs: A tensor, positional inputs, or inputs by name. With ``dynamic_batch`` of at
            least two samples, so that the batch is told from a dimension of one.
        input_names, output_names: Of the graph; None for the names of the model's arguments, and
            ``y`` (``y0``, ``y1``, ... for several).
        dynamic_batch: Whether the first dimension of every input tensor is free.
        opset: ONNX operator set, 18 or more.

    Raises:
        InputError: torch cannot export the model; the cause says why.
    """
    args, kwargs = _arguments(example_inputs)
    shapes = None
    if dynamic_batch:
        _check_batch((*args, *kwargs.values()))
        shapes = (
            {name: _free(value) for name, value in kwargs.items()}
            if kwargs
            else tuple(_free(value) for value in args)
        )
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                model,
                args,
                kwargs=kwargs or None,
                dynamic_shapes=shapes,
                opset_version=opset,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors share no base
        raise InputError(f"torch cannot export the model: {one_line(error)}") from error
    graph_model: ir.Model = program.model
    _own_tensors(graph_model)
    LiftWeights(min_elements=0)(graph_model)
    SimplifyNodes()(graph_model)
    RemoveUnusedNodesPass()(graph_model)
    _name_ends(graph_model, input_names, output_names)
    graph_model.producer_name = graph_model.producer_version = None
    graph_model.metadata_props.clear()
    graph_model.graph.name = "g"
    return graph_model


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, Mapping):
        return (), dict(given)
    if isinstance(given, Tensor):
        return (given,), {}
    return tuple(given), {}


def _check_batch(values: Sequence[Any]) -> None:
    sizes = {int(v.shape[0]) for v in values if isinstance(v, Tensor) and v.ndim}
    if 1 in sizes:
        raise InputError(
            "example_inputs: expected a batch of at least 2 samples, found 1: torch takes a "
            "dimension of 1 for fixed; give more, or dynamic_batch=False"
        )


def _free(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim:
        return {0: torch.export.Dim.DYNAMIC}
    if isinstance(value, tuple | list):
        return type(value)(_free(part) for part in value)
    return None


def _own_tensors(model: ir.Model) -> None:
    """Copies of torch's tensors, in their own memory."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                array = tensor.numpy().copy()
                value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=value.name)


def _name_ends(
    model: ir.Model, input_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> None:
    inputs, outputs = model.graph.inputs, model.graph.outputs
    if output_names is None:
        several = len(outputs) > 1
        output_names = [f"y{index}" if several else "y" for index in range(len(outputs))]
    for what, values, names in (
        ("input_names", inputs, input_names),
        ("output_names", outputs, output_names),
    ):
        if names is None:
            continue
        if len(names) != len(values) or len(set(names)) != len(names):
            raise InputError(
                f"{what}: expected {len(values)} different names, found {', '.join(names)}"
            )
    wanted = {id(v): n for v, n in zip(outputs, output_names, strict=True)}
    if input_names is not None:
        wanted |= {id(v): n for v, n in zip(inputs, input_names, strict=True)}
    others = {v.name: v for graph in model.graphs() for v in _values(graph) if id(v) not in wanted}
    for name in set(wanted.values()) & set(others):
        if others[name] in inputs:
            raise InputError(f"output_names: an input has the name {name!r}")
        if others[name].is_initializer():
            raise InputError(f"a weight has the name {name!r}: give another one")
        others[name].name = f"{name}_inner"
    for value in (*inputs, *outputs):
        value.name = wanted.get(id(value), value.name)
    _name_dimensions([*inputs, *outputs])


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _name_dimensions(values: Sequence[ir.Value]) -> None:
    """Short names for free dimensions: n, then m, k, l, ..."""
    letters = iter("nmklabcdefghijopqrstuvwxyz")
    known: dict[str, str] = {}
    for value in values:
        if value.shape is None:
            continue
        dims: list[int | str | None] = []
        for size in value.shape:
            if isinstance(size, int):
                dims.append(size)
            elif size.value is None:
                dims.append(None)
            else:
                text = str(size.value)
                if text not in known:
                    known[text] = next(letters, text)
                dims.append(known[text])
        value.shape = ir.Shape(dims)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
