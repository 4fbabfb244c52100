# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file, its header holding the rest as JSON; written beside the last
one and then moved into its place, so that there is always a whole one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from toolkit.errors import InputError, OutputError, one_line
from toolkit.output_file import beside, publish, write_failure
from toolkit.train.state_tree import flattened, restored

VERSION = 1
LAST, BEST = "last.safetensors", "best.safetensors"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes nested ``state`` (`state_tree.flattened` says of what) to ``path``, whole or not at
    all. Raises OutputError."""
    save_file, _ = _safetensors()
    tree, tensors = flattened(dict(state))
    header = {"format": "toolkit.train", "version": str(VERSION), "state": json.dumps(tree)}
    with beside(path) as temporary:
        try:
            save_file(tensors, str(temporary), header)
        except Exception as error:  # safetensors raises its own class, which hides the OSError
            if isinstance(error, OSError):
                raise write_failure(path, error) from error
            raise OutputError(f"{path}: cannot be written ({one_line(error)})") from error
        publish(temporary, path)


def read_checkpoint(path: Path) -> Any:
    """The state in ``path``. Raises InputError where it is no checkpoint, or damaged."""
    header, tensors = _read(path)
    if header.get("format") != "toolkit.train" or "state" not in header:
        raise InputError(f"{path}: no checkpoint of toolkit train")
    if header.get("version") != str(VERSION):
        raise InputError(
            f"{path}: a checkpoint of version {header.get('version')}, expected {VERSION}"
        )
    try:
        return restored(json.loads(header["state"]), tensors)
    except (InputError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a plain safetensors file by name, None for a checkpoint. Raises InputError
    where it is neither."""
    header, tensors = _read(path)
    return None if header.get("format") == "toolkit.train" else tensors


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Header and tensors of a safetensors file."""
    _, safe_open = _safetensors()
    try:
        with safe_open(str(path), framework="pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from error
    except Exception as error:  # safetensors' own class
        raise InputError(f"{path}: no checkpoint, or a damaged one: {one_line(error)}") from error


def layout_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name -> dtype and shape in words, what must agree for a checkpoint to belong to a model."""
    return {
        name: f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        for name, tensor in tensors.items()
    }


def check_layout(path: Path, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises InputError, naming the first tensor that differs, where a checkpoint is of another
    model."""
    for name in expected.keys() | found.keys():
        if expected.get(name) == found.get(name):
            continue
        what = found.get(name, "nothing")
        raise InputError(
            f"{path}: a checkpoint of another model: {name}: expected "
            f"{expected.get(name, 'nothing')}, found {what}"
        )


def _safetensors() -> tuple[Any, Any]:
    """How to save and how to open a file."""
    try:
        from safetensors import safe_open
        from safetensors.torch import save_file
    except ImportError as error:
        raise InputError(
            "checkpoints need the package safetensors: pip install 'onnx-weight-toolkit[train]'"
        ) from error
    return save_file, safe_open
