# SPDX-License-Identifier: Apache-2.0
"""Nested state as tensors and JSON: what a checkpoint holds, without pickle.

Tensors and arrays move to a flat dictionary and leave their key behind. Parameters of schemes are
written field by field; on reading only the classes of passes.schemes are made.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import torch

import passes.schemes
from toolkit.errors import InputError

_PLAIN = (str, int, float, bool, type(None))


def flattened(state: Any, prefix: str = "") -> tuple[Any, dict[str, torch.Tensor]]:
    """JSON values and the tensors of ``state``: nested mappings with names or numbers as keys,
    lists and tuples, tensors, arrays, numbers, texts, data classes of passes.schemes.

    Raises TypeError for anything else: a callback's state is at fault.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _down(state, prefix, tensors), tensors


def restored(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `flattened` was given. Raises InputError for what it did not write."""
    try:
        return _up(tree, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"checkpoint: the state is damaged: {error!r}") from error


def on_device(state: Any, device: torch.device) -> Any:
    """Nested state with its tensors on ``device``."""
    if isinstance(state, torch.Tensor):
        return state.to(device)
    if isinstance(state, Mapping):
        return {key: on_device(part, device) for key, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(on_device(part, device) for part in state)
    return state


def copied(state: Any) -> Any:
    """Nested state with copies of its tensors on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: copied(part) for key, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(part) for part in state)
    return state


def _down(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": place}
    if isinstance(value, np.ndarray):
        return _array(value, place, tensors)
    if isinstance(value, np.generic):
        return {"$scalar": _array(np.asarray(value), place, tensors)}
    if isinstance(value, np.dtype):
        return {"$dtype": value.name}
    if dataclasses.is_dataclass(value) and type(value).__name__ in _known():
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"$class": type(value).__name__, "fields": _down(fields, place, tensors)}
    if isinstance(value, Mapping):
        pairs = [
            [key, _down(part, f"{place}.{key}" if place else str(key), tensors)]
            for key, part in value.items()
        ]
        return {"$map": pairs}
    if isinstance(value, list | tuple):
        parts = [_down(part, f"{place}.{i}", tensors) for i, part in enumerate(value)]
        return parts if isinstance(value, list) else {"$tuple": parts}
    raise TypeError(f"{place}: a checkpoint cannot hold a {type(value).__name__}")


def _array(value: np.ndarray, place: str, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    array = np.ascontiguousarray(value).reshape(value.shape)
    if array.dtype == ml_dtypes.bfloat16:
        tensors[place] = torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    else:
        tensors[place] = torch.from_numpy(array.copy())
    return {"$array": place}


def _up(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(tree, list):
        return [_up(part, tensors) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        return tensors[tree["$tensor"]].clone()
    if "$array" in tree:
        tensor = tensors[tree["$array"]]
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
        return tensor.numpy().copy()
    if "$scalar" in tree:
        return _up(tree["$scalar"], tensors)[()]
    if "$dtype" in tree:
        return np.dtype(getattr(ml_dtypes, tree["$dtype"], None) or tree["$dtype"])
    if "$tuple" in tree:
        return tuple(_up(part, tensors) for part in tree["$tuple"])
    if "$class" in tree:
        return _known()[tree["$class"]](**_up(tree["fields"], tensors))
    return {key: _up(part, tensors) for key, part in tree["$map"]}


@cache
def _known() -> dict[str, Any]:
    """The data classes of passes.schemes, by name."""
    return {
        name: kind
        for module, content in list(sys.modules.items())
        if module.startswith(f"{passes.schemes.__name__}.")
        for name, kind in vars(content).items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module
    }
