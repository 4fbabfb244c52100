# SPDX-License-Identifier: Apache-2.0
"""`inspect`: where the bytes of a file are, tensor by tensor, plain or compressed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import InputError, one_line
from toolkit.model_check import DOMAIN, read_any

if TYPE_CHECKING:
    import onnx

PathLike = str | os.PathLike[str]


@dataclass
class TensorInfo:
    """One tensor. `num_bytes` is its share of the file (for a compressed weight an estimate: shared
    blobs are split by the entropy of what each weight decodes to), `entropy` bits per element of
    its symbols, or of its values in bytes for a plain tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scheme: str
    num_elements: int
    num_bytes: float
    entropy: float
    share: float = 0.0

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.num_bytes / max(self.num_elements, 1)


@dataclass
class Inspection:
    """A file and its tensors, the largest first."""

    model: str
    num_bytes: int
    compressed: bool
    opset: int
    functions: list[str]
    tensors: list[TensorInfo] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        for row, tensor in zip(values["tensors"], self.tensors, strict=True):
            row["bits_per_weight"] = tensor.bits_per_weight
        return values


def inspect(model: PathLike) -> Inspection:
    """Looks into a file. Raises `InputError` where it cannot be read or decoded."""
    found = read_any(Path(model))
    proto = found.proto
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)
    functions = [f.name for f in proto.functions if f.domain == DOMAIN]
    result = Inspection(str(model), found.num_bytes, found.is_compressed, opset, functions)
    blobs = _blob_bytes(proto) if found.is_compressed else {}
    tensors = [_plain(tensor) for tensor in proto.graph.initializer if tensor.name not in blobs]
    tensors += [_sparse(tensor) for tensor in proto.graph.sparse_initializer]
    if found.is_compressed:
        tensors += _compressed(found.path, proto, blobs)
    for tensor in tensors:
        tensor.share = tensor.num_bytes / max(found.num_bytes, 1)
    result.tensors = sorted(tensors, key=lambda tensor: -tensor.num_bytes)
    return result


def entropy(values: npt.NDArray[Any]) -> float:
    """Zeroth-order entropy in bits per element of any array."""
    if values.size == 0:
        return 0.0
    raw = np.ascontiguousarray(values)
    if raw.dtype.kind not in "iub" and raw.dtype.itemsize in (1, 2, 4, 8):
        raw = raw.view(f"u{raw.dtype.itemsize}")
    flat = raw.reshape(-1)
    counts: npt.NDArray[Any]
    if flat.dtype.itemsize <= 2 and flat.dtype.kind in "iu":
        counts = np.bincount(flat.astype(np.int64) - int(flat.min()))
        counts = counts[counts > 0]
    else:
        counts = np.unique(flat, return_counts=True)[1]
    shares = counts / flat.size
    return abs(float(np.sum(shares * np.log2(shares))))


def _sparse(tensor: onnx.SparseTensorProto) -> TensorInfo:
    import onnx

    values = onnx.numpy_helper.to_array(tensor.values)
    dtype = _type_name(tensor.values)
    shape, size = tuple(tensor.dims), float(tensor.ByteSize())
    return TensorInfo(
        tensor.values.name, shape, dtype, "sparse", prod(shape), size, entropy(values)
    )


def _plain(tensor: onnx.TensorProto) -> TensorInfo:
    import onnx

    dtype = _type_name(tensor)
    shape = tuple(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        size = sum(len(text) for text in tensor.string_data)
        return TensorInfo(tensor.name, shape, dtype, "plain", len(tensor.string_data), size, 0.0)
    values = onnx.numpy_helper.to_array(tensor)
    return TensorInfo(
        tensor.name, shape, dtype, "plain", values.size, float(values.nbytes), entropy(values)
    )


def _type_name(tensor: onnx.TensorProto) -> str:
    """As numpy names types, `float32` for FLOAT."""
    import onnx

    name = str(onnx.TensorProto.DataType.Name(tensor.data_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _blob_bytes(proto: onnx.ModelProto) -> dict[str, int]:
    """Bytes of the initializers that operators of the toolkit read first: the blobs."""
    sizes = {t.name: t for t in proto.graph.initializer}
    blobs: dict[str, int] = {}
    for node in proto.graph.node:
        if node.domain == DOMAIN and node.input and node.input[0] in sizes:
            blobs[node.input[0]] = sizes[node.input[0]].ByteSize()
    return blobs


def _compressed(path: Path, proto: onnx.ModelProto, blobs: Mapping[str, int]) -> list[TensorInfo]:
    from toolkit.verify import run_decoder, split_file

    producers = {output: node for node in proto.graph.node for output in node.output}
    sources = {t.name for t in proto.graph.initializer}
    try:
        parts = split_file(path)
        values = run_decoder(parts[0]) if parts is not None else []
    except Exception as error:  # runtime's and onnxruntime's
        raise InputError(f"{path}: its weights cannot be decoded ({one_line(error)})") from error
    names = [output.name for output in parts[0].graph.output] if parts is not None else []
    rows: list[TensorInfo] = []
    owners: dict[str, list[tuple[TensorInfo, float]]] = {}
    for name, value in zip(names, values, strict=True):
        scheme, used = _chain(name, producers, sources)
        bits = entropy(value)
        row = TensorInfo(name, value.shape, str(value.dtype), scheme, value.size, 0.0, bits)
        rows.append(row)
        for blob in used:
            if blob in blobs:
                owners.setdefault(blob, []).append((row, bits * value.size))
    for blob, shares in owners.items():
        total = sum(weight for _, weight in shares) or 1.0
        for row, weight in shares:
            row.num_bytes += blobs[blob] * weight / total
    return rows


def _chain(
    name: str, producers: Mapping[str, onnx.NodeProto], sources: set[str]
) -> tuple[str, set[str]]:
    """How a weight is made, in words, and the initializers it is made from."""
    operators: list[str] = []
    used: set[str] = set()
    queue, seen = [name], {name}
    while queue:
        current = queue.pop()
        if current in sources:
            used.add(current)
        node = producers.get(current)
        if node is None:
            continue
        operators.append(node.op_type)
        for source in node.input:
            if source and source not in seen:
                seen.add(source)
                queue.append(source)
    if "JoinFloat" in operators or "JoinHalf" in operators:
        scheme = "lossless"
    elif "DequantizeLinear" in operators or "DecodeDequantize" in operators:
        scheme = "uniform"
    elif "Gather" in operators or "DecodeLookup" in operators:
        scheme = "codebook"
    else:
        scheme = "integer"
    coder = next((op for op in operators if op.startswith("Decode")), "")
    if "ScatterElements" in operators:
        return f"{scheme}, zero_run", used
    return (f"{scheme}, {coder.removeprefix('Decode').lower()}" if coder else scheme), used
