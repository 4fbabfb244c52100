# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX file into the form that the passes work on, and writes one back whole or not at
all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from passes.convert_opset import LOWEST_OPSET, default_opset, raise_opset
from passes.errors import ModelError, one_line
from passes.lift_weights import LiftWeights
from passes.model_proto import external_files, read_proto
from passes.model_writer import write_model
from passes.sparse_initializers import densify

__all__ = ["LoadedModel", "deserialize", "read_model", "write_model"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FUNCTIONS_IR_VERSION = 8


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready for the passes.

    Attributes:
        model: At opset 13 or more, all weights as dense initializers of the main graph.
        path: Where it was read from.
        num_bytes: Bytes of the file and of the files with its external data.
        notes: One line for each thing that was changed on the way.
        external: The files with its external data.
    """

    model: ir.Model
    path: Path
    num_bytes: int
    notes: tuple[str, ...]
    external: tuple[Path, ...] = ()


def read_model(path: str | Path) -> LoadedModel:
    """Reads ``path``; external data is memory-mapped, not copied.

    Raises:
        ModelError: not a file, not ONNX, truncated, external data missing or too short, already
            compressed, an opset below 7, or one below 13 that cannot be converted. The message
            names the file.
    """
    path = Path(path)
    proto = read_proto(path)
    files = external_files(proto, path)
    num_bytes = path.stat().st_size + sum(files.values())
    notes = []
    opset = default_opset(proto)
    try:
        sparse = densify(proto, path.parent)
        proto = raise_opset(proto)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if sparse:
        notes.append(f"{len(sparse)} sparse initializers made dense")
    if opset < LOWEST_OPSET:
        notes.append(f"converted from opset {opset} to {LOWEST_OPSET}")
    try:
        model = deserialize(proto, path)
        ir.external_data.set_base_dir(model.graph, path.parent)
        notes.extend(_free_initializers(model))
        if LiftWeights()(model).modified:
            notes.append(
                "weights in Constant nodes, functions or subgraphs moved to the main graph"
            )
    except ModelError:
        raise
    except Exception as error:  # onnx_ir raises many types on a malformed graph
        raise _invalid(path, error) from error
    model.ir_version = max(model.ir_version, _FUNCTIONS_IR_VERSION)
    return LoadedModel(model, path, num_bytes, tuple(notes), tuple(files))


def deserialize(proto: onnx.ModelProto, path: str | os.PathLike[str]) -> ir.Model:
    """The model behind a proto. ModelError, naming ``path``, for a malformed graph."""
    try:
        return ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx_ir raises many types
        raise _invalid(path, error) from error


def _invalid(path: str | os.PathLike[str], error: BaseException) -> ModelError:
    while error.__cause__ is not None:  # the outer ones only say where onnx_ir was
        error = error.__cause__
    return ModelError(f"{path}: not a valid ONNX model: {one_line(error)}")


def _free_initializers(model: ir.Model) -> list[str]:
    """Takes initializers off the graph's inputs where an exporter put all of them there.

    Before IR version 4 every initializer had to be listed as an input. Later, a listed one can be
    replaced by the caller, so it is left alone unless every float initializer is listed, which only
    exporters do.
    """
    floats = [v for v in model.graph.initializers.values() if v.dtype in _FLOATS]
    listed = [v for v in floats if v.is_graph_input()]
    if not listed or (model.ir_version >= 4 and len(listed) < len(floats)):
        return [f"weight {v.name!r} is also a graph input and was left alone" for v in listed]
    RemoveInitializersFromInputsPass()(model)
    return ["initializers no longer listed as graph inputs"]
