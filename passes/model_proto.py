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
_PACKED = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}
"""Elements per byte of the types that share one."""


def read_proto(path: Path) -> onnx.ModelProto:
    """As ``parse_proto``, for a model to be compressed. ModelError also where it is already."""
    proto = parse_proto(path)
    if is_compressed(proto):
        raise ModelError(f"{path}: the model is compressed already; expand it first")
    return proto


def is_compressed(proto: onnx.ModelProto) -> bool:
    """Whether a model holds operators of the toolkit, in its graphs or as functions."""
    nodes = (node for graph in graphs_of(proto.graph) for node in graph.node)
    return any(f.domain == DOMAIN for f in proto.functions) or any(
        n.domain == DOMAIN for n in nodes
    )


def parse_proto(path: Path) -> onnx.ModelProto:
    """The parsed file, external data not loaded. ModelError: not a file, not readable, not ONNX,
    truncated, a name that is no text, or a tensor whose bytes do not fit its shape."""
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
    del data  # as large as the model, and the checks below copy a tensor each
    if proto.ir_version < 1 or not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(
            f"{path}: not an ONNX model, or a truncated one: it has no graph with outputs"
        )
    for graph in graphs_of(proto.graph):
        for name in _names_of(graph):
            if not isinstance(name, str):  # protobuf hands out bytes that are not UTF-8 as they are
                raise ModelError(f"{path}: not an ONNX model: the name {name!r} is not UTF-8")
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


def _names_of(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    for holder in (graph.input, graph.output, graph.initializer, graph.value_info):
        yield from (item.name for item in holder)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def external_files(proto: onnx.ModelProto, path: Path) -> dict[Path, int]:
    """The files with a model's external data and their sizes in bytes. ModelError where one is
    missing or too short for its tensors."""
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
            if offset < 0 or int(entries.get("length", "0")) < 0:
                raise ValueError("a negative offset or length")
            if file.exists() and not file.is_file():
                raise ValueError(f"{file} is no file")
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
        if offset + wanted > files[file]:
            raise ModelError(
                f"{path}: tensor {tensor.name!r}: external data {file} is too short: expected "
                f"{offset + wanted} bytes, found {files[file]}"
            )
    return files


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    if any(d < 0 for d in tensor.dims):
        raise ModelError(
            f"{path}: tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}"
        )
    if tensor.data_type not in onnx.TensorProto.DataType.values():
        raise ModelError(f"{path}: tensor {tensor.name!r}: there is no type {tensor.data_type}")
    if tensor.data_location == onnx.TensorProto.EXTERNAL or not tensor.data_type:
        return
    if tensor.HasField("raw_data"):
        expected, found, unit = _data_bytes(tensor), len(tensor.raw_data), "bytes"
    else:
        expected, found, unit = _typed_values(tensor)
    if expected >= 0 and found != expected:
        raise ModelError(
            f"{path}: tensor {tensor.name!r}: expected {expected} {unit} for shape "
            f"{list(tensor.dims)}, found {found}"
        )


def _typed_values(tensor: onnx.TensorProto) -> tuple[int, int, str]:
    """How many entries a tensor needs in the field of its type, how many it has, and the field."""
    kinds = onnx.TensorProto.DataType
    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    kind, elements = kinds.Name(tensor.data_type), prod(tensor.dims)
    if kind.startswith("COMPLEX"):
        elements *= 2
    elif kind in _PACKED:
        elements = -(-elements // _PACKED[kind])
    return elements, len(getattr(tensor, field)), f"values of {field}"


def _data_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's shape and type ask for; -1 for types without a fixed size."""
    kinds = onnx.TensorProto.DataType
    try:
        kind = kinds.Name(tensor.data_type)
        if kind in ("STRING", "UNDEFINED"):
            return -1
        elements = prod(tensor.dims)
        if kind in _PACKED:
            return int(-(-elements // _PACKED[kind]))
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
