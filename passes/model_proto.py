# SPDX-License-Identifier: Apache-2.0
"""Reads the bytes of an ONNX file and checks them before anything is built on them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError

from passes.errors import ModelError, one_line
from passes.operators import DOMAIN
from passes.sparse_initializers import graphs_of

_GRAPH_FIELD = 7


def read_proto(path: Path) -> onnx.ModelProto:
    """The parsed file, external data not loaded. ModelError: not a file, not readable, not ONNX,
    truncated, already compressed, or a tensor whose bytes do not fit its shape."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path}: not a file")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    if not data:
        raise ModelError(f"{path}: the file is empty")
    announced = announced_bytes(data)
    if announced > len(data):
        raise ModelError(
            f"{path}: truncated: the model announces at least {announced} bytes, "
            f"the file has {len(data)}"
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX model") from error
    if proto.ir_version < 1 or not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one: it has no graph with outputs"
        )
    nodes = (node for graph in graphs_of(proto.graph) for node in graph.node)
    if any(f.domain == DOMAIN for f in proto.functions) or any(n.domain == DOMAIN for n in nodes):
        raise ModelError(f"{path}: the model is compressed already; expand it first")
    for tensor in tensors_of(proto):
        _check_tensor(tensor, path)
    return proto


def announced_bytes(data: bytes) -> int:
    """Bytes up to the end of the graph, if ``data`` starts like an ONNX model; else 0."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
            at += length
        else:
            return 0
        if field == 0 or field > 30:
            return 0
        if field == _GRAPH_FIELD or at > len(data):
            return at if data[0] == 0x08 else 0
    return 0


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All dense tensors of a model: initializers and attributes, in subgraphs and functions too."""
    nodes: list[onnx.NodeProto] = [node for function in proto.functions for node in function.node]
    inner = [a.g for n in nodes for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    for graph in (g for outer in (proto.graph, *inner) for g in graphs_of(outer)):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        nodes.extend(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def check_external_data(proto: onnx.ModelProto, path: Path) -> int:
    """Checks that all external data is there; returns the bytes of the files that hold it."""
    files: dict[Path, int] = {}
    for tensor in tensors_of(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
        if (
            not location
            or ".." in parts
            or PureWindowsPath(location).anchor
            or location.startswith("/")
        ):
            raise ModelError(
                f"{path}: tensor {tensor.name!r}: external data at {location!r} is not allowed"
            )
        file = path.parent / location
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", "-1"))
            files.setdefault(file, file.stat().st_size)
        except ValueError as error:
            raise ModelError(
                f"{path}: tensor {tensor.name!r}: external data: {one_line(error)}"
            ) from error
        except OSError as error:
            raise ModelError(
                f"{path}: tensor {tensor.name!r}: external data {file} is missing"
            ) from error
        expected = _data_bytes(tensor)
        wanted = length if length >= 0 else max(expected, 0)
        if 0 <= length != expected >= 0:
            raise ModelError(
                f"{path}: tensor {tensor.name!r}: expected {expected} bytes of external data, "
                f"found {length}"
            )
        if offset < 0 or offset + wanted > files[file]:
            raise ModelError(
                f"{path}: tensor {tensor.name!r}: external data {file} is too short: expected "
                f"{offset + wanted} bytes, found {files[file]}"
            )
    return sum(files.values())


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    if any(d < 0 for d in tensor.dims):
        raise ModelError(
            f"{path}: tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}"
        )
    expected = _data_bytes(tensor)
    if tensor.HasField("raw_data") and expected >= 0 and len(tensor.raw_data) != expected:
        raise ModelError(
            f"{path}: tensor {tensor.name!r}: expected {expected} bytes for shape "
            f"{list(tensor.dims)}, found {len(tensor.raw_data)}"
        )


def _data_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's shape and type ask for; -1 for types without a fixed size."""
    kinds = onnx.TensorProto.DataType
    try:
        kind = kinds.Name(tensor.data_type)
        if kind in ("STRING", "UNDEFINED"):
            return -1
        elements = prod(tensor.dims)
        if kind in ("INT4", "UINT4", "FLOAT4E2M1"):
            return int(-(-elements // 2))
        if kind in ("INT2", "UINT2"):
            return int(-(-elements // 4))
        return int(elements * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (ValueError, KeyError):
        return -1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf varint at ``at`` and the place behind it; a cut one ends behind the data."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    return value, len(data) + 1
