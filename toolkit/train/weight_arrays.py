# SPDX-License-Identifier: Apache-2.0
"""Between torch's parameters and the arrays that schemes are fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import torch
from torch import nn

from toolkit.errors import InputError

T = TypeVar("T")


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor as an array; bfloat16 as ml_dtypes.bfloat16."""
    values = tensor.detach().to("cpu", copy=True).contiguous()
    if values.dtype == torch.bfloat16:
        return np.asarray(values.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(values.numpy())


def tensor_of(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An array as a tensor of the type and on the device of ``like``."""
    if array.dtype == ml_dtypes.bfloat16:
        array = array.astype(np.float32)  # exact, and exact back
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, like.dtype)


def put(parameter: torch.Tensor, array: np.ndarray) -> None:
    """Writes ``array`` into ``parameter``, in place."""
    with torch.no_grad():
        parameter.copy_(tensor_of(array, parameter))


def channel_axes(model: nn.Module) -> dict[str, int]:
    """Parameter name -> axis of output channels: 1 for transposed convolutions without groups, else
    0."""
    axes = {}
    for prefix, module in model.named_modules():
        turned = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
        for name, _ in module.named_parameters(prefix, recurse=False):
            axes[name] = 1 if turned and name.endswith("weight") else 0
    return axes


def matched(method: str, rules: Mapping[str, T], model: nn.Module) -> dict[str, T]:
    """Parameter name -> what the first glob pattern that matches it says.

    Raises InputError, naming the method, for a pattern that matches no parameter, or those only
    that patterns before it take.
    """
    found: dict[str, T] = {}
    used: set[str] = set()
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        for pattern, value in rules.items():
            if fnmatchcase(name, pattern):
                found[name] = value
                used.add(pattern)
                break
    for pattern in rules:
        if pattern not in used:
            raise InputError(
                f"{method}: {pattern!r} matches no parameter that is left, there are "
                f"{', '.join(names)}"
            )
    return found


def parameter_of(model: nn.Module, name: str) -> nn.Parameter:
    """A parameter by name."""
    parameter: Any = model.get_parameter(name)
    return parameter
