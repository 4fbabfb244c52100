# SPDX-License-Identifier: Apache-2.0
"""Turns sparse initializers of an ONNX proto into dense ones, which is all that onnx_ir knows, and
those that are to be sparse back."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from passes.errors import ModelError


def densify(proto: onnx.ModelProto, base_dir: Path) -> list[str]:
    """Replaces every sparse initializer, in subgraphs too; returns their names.

    External data of values and indices is read from ``base_dir``. Raises ModelError for indices out
    of range.
    """
    names = []
    for graph in graphs_of(proto.graph):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse, base_dir))
            names.append(sparse.values.name)
        del graph.sparse_initializer[:]
    return names


def sparsify(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Replaces the float initializers ``names`` of ``graph`` by sparse ones: values that are not
    zero, and their flat indices (ONNX: int64, ascending)."""
    for place in reversed(range(len(graph.initializer))):
        tensor = graph.initializer[place]
        if tensor.name not in names:
            continue
        flat = numpy_helper.to_array(tensor).reshape(-1)
        places = np.flatnonzero(flat)
        sparse = graph.sparse_initializer.add()
        sparse.dims.extend(tensor.dims)
        sparse.values.CopyFrom(numpy_helper.from_array(flat[places], tensor.name))
        sparse.indices.CopyFrom(numpy_helper.from_array(places.astype(np.int64)))
        del graph.initializer[place]


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs in attributes of its nodes, outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)
            for inner in attribute.graphs:
                yield from graphs_of(inner)


def _dense(sparse: onnx.SparseTensorProto, base_dir: Path) -> onnx.TensorProto:
    name, dims = sparse.values.name, tuple(sparse.dims)
    try:
        values = numpy_helper.to_array(sparse.values, base_dir=str(base_dir))
        indices = numpy_helper.to_array(sparse.indices, base_dir=str(base_dir)).astype(np.int64)
    except (ValueError, OSError, TypeError) as error:
        raise ModelError(
            f"sparse initializer {name!r}: its data cannot be read: {error}"
        ) from error
    if indices.ndim == 2 and indices.shape[1] == len(dims):
        columns = indices.T
        inside = all(((c >= 0) & (c < d)).all() for c, d in zip(columns, dims, strict=True))
        flat = (
            np.ravel_multi_index(tuple(columns), dims)
            if inside and indices.size
            else columns[:1].ravel()
        )
    else:
        flat = indices.reshape(-1)
        inside = bool(((flat >= 0) & (flat < prod(dims))).all())
    if not inside or flat.size != values.size:
        raise ModelError(
            f"sparse initializer {name!r}: expected {values.size} indices inside of {dims}, "
            f"found {flat.size}{'' if inside else ', some outside'}"
        )
    dense = np.zeros(prod(dims), values.dtype)
    dense[flat] = values.reshape(-1)
    return numpy_helper.from_array(dense.reshape(dims), name)
