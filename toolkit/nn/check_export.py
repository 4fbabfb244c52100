# SPDX-License-Identifier: Apache-2.0
"""Reads a written file back: its weights are those that were trained, its outputs the model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.errors import VerificationError
from toolkit.verify import check_weights, expected_weights, run_compressed

if TYPE_CHECKING:
    from passes import EncodedWeight
    from passes.schemes import Parameters

_MOST = 1e-2
"""Difference of outputs, as a share of the largest: far above round-off, far below a mistake."""


def check_stored(
    path: Path,
    fitted: Mapping[str, Parameters],
    names: Mapping[str, str],
    encoded: Sequence[EncodedWeight],
) -> None:
    """Compares every weight that the file decodes with what was fitted, bit for bit (within
    round-off where decoding adds up products). Raises `VerificationError` for the first that
    differs."""
    if not encoded:
        return
    coded = {row.name for row in encoded}
    expected = expected_weights({names[n]: p for n, p in fitted.items() if names[n] in coded})
    check_weights(path, expected, [])


def check_outputs(
    path: Path, model: nn.Module, example_inputs: Any, *, is_lossy: bool = False
) -> float:
    """The largest difference of the file's outputs from the model's in torch.

    Raises `VerificationError` where outputs are missing or, unless the file ``is_lossy``, one is
    more than a hundredth of its largest magnitude away.
    """
    args, kwargs = (), {}
    if isinstance(example_inputs, Mapping):
        kwargs = {name: _cpu(value) for name, value in example_inputs.items()}
    else:
        given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        args = tuple(_cpu(value) for value in given)
    with torch.no_grad():
        expected = [t for t in _tensors(model(*args, **kwargs)) if t.is_floating_point()]
    import onnx

    inputs = [value.name for value in onnx.load(str(path)).graph.input]
    tensors = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
    feed = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
    (outputs,) = run_compressed(path, [feed])
    found = [value for value in outputs.values() if np.asarray(value).dtype.kind == "f"]
    if len(found) != len(expected):
        raise VerificationError(
            f"{path}: expected {len(expected)} outputs of floats, found {len(found)}"
        )
    largest = 0.0
    for value, tensor in zip(found, expected, strict=True):
        wanted = tensor.float().numpy()
        difference = float(np.abs(value - wanted).max(initial=0.0))
        most = np.inf if is_lossy else _MOST * float(np.abs(wanted).max(initial=1e-6))
        if value.shape != wanted.shape or not difference <= most:
            raise VerificationError(
                f"{path}: an output {list(value.shape)} is {difference:g} away from the model's "
                f"{list(wanted.shape)}"
            )
        largest = max(largest, difference)
    return largest


def _cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
