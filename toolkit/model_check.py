# SPDX-License-Identifier: Apache-2.0
"""Reads any ONNX file, compressed or not, for looking at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import InputError, one_line

if TYPE_CHECKING:
    import onnx

DOMAIN = "toolkit"


@dataclass
class AnyModel:
    """A parsed file: `num_bytes` of it and its external data, `is_compressed` if it holds operators
    of the toolkit."""

    path: Path
    proto: onnx.ModelProto
    num_bytes: int
    is_compressed: bool


def read_any(path: Path) -> AnyModel:
    """Parses a file and loads its external data. Raises `InputError`, one line, for what is no
    file, no ONNX model, truncated, or misses its external data."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: is no file")
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from error
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path}: is no ONNX model, or a truncated one") from error
    if not proto.HasField("graph") or proto.ir_version < 1 or not proto.graph.output:
        raise InputError(f"{path}: is no ONNX model, or a truncated one")
    num_bytes = path.stat().st_size + _external_bytes(path, proto)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # onnx raises its own and the operating system's errors
        raise InputError(f"{path}: its external data cannot be read ({one_line(error)})") from error
    used = any(node.domain == DOMAIN for node in walk_nodes(proto.graph))
    return AnyModel(path, proto, num_bytes, used)


def walk_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph and of the graphs inside of its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from walk_nodes(attribute.g)
            for inner in attribute.graphs:
                yield from walk_nodes(inner)


def _external_bytes(path: Path, proto: onnx.ModelProto) -> int:
    import onnx

    files: set[Path] = set()
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    files.add(path.parent / entry.value)
    return sum(file.stat().st_size for file in files if file.is_file())
