# SPDX-License-Identifier: Apache-2.0
"""Writes a model atomically: a temporary file beside the target, flushed to the disk, then
renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from passes.errors import ModelError, one_line
from passes.sparse_initializers import graphs_of, sparsify
from passes.store_sparse import MARK, sparse_names

# Protobuf cannot hold more than 2 GiB in one message; what is beside the tensors needs some room.
MAX_FILE_BYTES = 2**31 - 2**24
_EXTERNAL_BYTES = 1024
_ALIGNMENT = 4096
_UMASK_PROBE = 0o022


def write_model(
    model: ir.Model,
    path: str | Path,
    *,
    input_path: str | Path | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> int:
    """Writes ``model`` to ``path`` and returns the bytes written, external data included.

    A model larger than ``max_file_bytes`` gets its tensors into ``<name>.data`` beside it, one at a
    time. Nothing appears under either name before all is written, and nothing is left behind on
    failure. ``model`` is unchanged afterwards.

    Raises:
        ModelError: ``path`` is ``input_path`` (or its external data), cannot be written, or the
            disk is full.
    """
    path = Path(path)
    if input_path is not None and _same_file(path, Path(input_path)):
        raise ModelError(f"{path}: the output is the same file as the input")
    data_path = path.with_name(path.name + ".data")
    if path.is_dir():
        raise ModelError(f"{path}: cannot be written: it is a folder")
    tensors = [
        v for g in model.graphs() for v in g.initializers.values() if v.const_value is not None
    ]
    dense = [v for v in tensors if not v.meta.get(MARK)]
    total = sum(v.const_value.nbytes for v in dense if v.const_value is not None)
    _refuse_own_source(tensors, path)
    try:
        if total <= max_file_bytes:
            with _embedded(tensors):
                data = model_to_proto(model).SerializeToString()
            _replace(path, lambda file: file.write(data))
            return len(data)
        _refuse_own_source(tensors, data_path)
        return _write_with_data(model, dense, path, data_path)
    except OSError as error:
        reason = (
            "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        )
        raise ModelError(f"{path}: cannot be written: {reason or one_line(error)}") from error


def model_to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as ONNX proto, without the types and shapes that onnx_ir repeats for every
    initializer; marked ones become sparse."""
    proto: onnx.ModelProto = ir.serde.serialize_model(model)
    for graph in graphs_of(proto.graph):
        constants = {tensor.name for tensor in graph.initializer}
        kept = [info for info in graph.value_info if info.name not in constants]
        if len(kept) < len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(kept)
    sparsify(proto.graph, sparse_names(model.graph))
    return proto


def _write_with_data(model: ir.Model, tensors: list[ir.Value], path: Path, data_path: Path) -> int:
    large = [
        v for v in tensors if v.const_value is not None and v.const_value.nbytes >= _EXTERNAL_BYTES
    ]
    offsets: list[int] = []
    with _temporary(data_path) as (data_file, data_temporary):
        for value in large:
            data_file.write(bytes(-data_file.tell() % _ALIGNMENT))
            offsets.append(data_file.tell())
            if value.const_value is not None:
                data_file.write(value.const_value.tobytes())
        data_bytes = data_file.tell()
        kept = [v.const_value for v in large]
        try:
            for value, offset, tensor in zip(large, offsets, kept, strict=True):
                if tensor is None:
                    continue
                value.const_value = ir.ExternalTensor(
                    data_path.name,
                    offset,
                    tensor.nbytes,
                    tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=value.name or "",
                    base_dir=data_path.parent,
                )
            proto = model_to_proto(model)
        finally:
            for value, tensor in zip(large, kept, strict=True):
                value.const_value = tensor
        data = proto.SerializeToString()
        with _temporary(path) as (file, temporary):
            file.write(data)
            _finish(data_file, data_temporary, data_path)
            _finish(file, temporary, path)
    return len(data) + data_bytes


@contextmanager
def _embedded(values: list[ir.Value]) -> Iterator[None]:
    """Serialises external tensors as data: they would keep pointing to the files they were read
    from."""
    external = [(v, v.const_value) for v in values if isinstance(v.const_value, ir.ExternalTensor)]
    try:
        for value, tensor in external:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
        yield
    finally:
        for value, tensor in external:
            value.const_value = tensor


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with _temporary(path) as (file, temporary):
        write(file)
        _finish(file, temporary, path)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """An open temporary file in the folder of ``path``; removed at the end unless it was
    renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _finish(file: BinaryIO, temporary: Path, path: Path) -> None:
    """Flushes to the disk, gives the file the mode of any new file, and puts it under its name."""
    file.flush()
    os.fsync(file.fileno())
    umask = os.umask(_UMASK_PROBE)
    os.umask(umask)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask
    temporary.chmod(mode)
    temporary.replace(path)


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return first.absolute() == second.absolute()


def _refuse_own_source(values: list[ir.Value], target: Path) -> None:
    """Writing over a file that tensors are still mapped from would destroy them."""
    for value in values:
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and _same_file(Path(tensor.path), target):
            raise ModelError(
                f"{target}: holds the external data of the input; choose another output name"
            )
