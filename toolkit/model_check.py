# SPDX-License-Identifier: Apache-2.0
"""Reads any ONNX file, compressed or not, for looking at it."""

from __future__ import annotations

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
    of the toolkit, `external` the files with its external data."""

    path: Path
    proto: onnx.ModelProto
    num_bytes: int
    is_compressed: bool
    external: list[Path]


def read_any(path: Path) -> AnyModel:
    """Parses a file and loads its external data. Raises `InputError`, one line, for what is no
    file, no ONNX model, truncated, or misses its external data."""
    import onnx

    from passes.errors import ModelError
    from passes.model_proto import external_files, is_compressed, parse_proto

    try:
        proto = parse_proto(path)
        files = external_files(proto, path)
    except ModelError as error:
        raise InputError(str(error)) from error
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # onnx raises its own and the operating system's errors
        raise InputError(f"{path}: its external data cannot be read ({one_line(error)})") from error
    num_bytes = path.stat().st_size + sum(files.values())
    return AnyModel(path, proto, num_bytes, is_compressed(proto), list(files))
