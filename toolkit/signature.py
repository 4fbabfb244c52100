# SPDX-License-Identifier: Apache-2.0
"""What a model takes: names, element types and shapes of its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

NUMPY_TYPES: dict[str, str] = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "str",
}
"""numpy's name of each element type as onnxruntime prints it."""


class SessionInput(Protocol):
    """What `onnxruntime.InferenceSession.get_inputs` returns."""

    name: str
    type: str
    shape: Any


@dataclass(frozen=True)
class InputSpec:
    """One input. `element` is onnxruntime's element type ("float", "int64", ...), or its whole type
    where it is no tensor. A dimension is its size, its symbol, or None where nothing is known."""

    name: str
    element: str
    shape: tuple[int | str | None, ...]
    is_tensor: bool = True

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """numpy's element type, None where numpy has none (bfloat16, float8, sequences)."""
        name = NUMPY_TYPES.get(self.element) if self.is_tensor else None
        if name is None:
            return None
        return np.dtype(object) if name == "str" else np.dtype(name)

    @property
    def text(self) -> str:
        """The input in words, e.g. `input_ids int64 [batch, 128]`."""
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.element} [{dims}]"


def signature(inputs: Iterable[SessionInput]) -> list[InputSpec]:
    """The signature behind a session's `get_inputs()`."""
    specs = []
    for entry in inputs:
        is_tensor = entry.type.startswith("tensor(") and entry.type.endswith(")")
        element = entry.type[len("tensor(") : -1] if is_tensor else entry.type
        shape = tuple(_dimension(d) for d in entry.shape or ())
        specs.append(InputSpec(entry.name, element, shape, is_tensor))
    return specs


def _dimension(size: object) -> int | str | None:
    """A size or a symbol; None for what exporters write where they know neither: -1, "" and "?"."""
    if isinstance(size, str):
        return size if size.strip("?") else None
    return size if isinstance(size, int) and size >= 0 else None


def model_signature(model: ir.Model) -> list[InputSpec]:
    """The signature of a model that was read; initializers listed as inputs are left out."""
    import onnx_ir as ir

    specs = []
    for value in model.graph.inputs:
        name = value.name or ""
        if name in model.graph.initializers:
            continue
        shape: tuple[int | str | None, ...] = ()
        if value.shape is not None:
            shape = tuple(_dimension(d if isinstance(d, int) else d.value) for d in value.shape)
        is_tensor = value.type is None or isinstance(value.type, ir.TensorType)
        element = value.dtype.name.lower() if value.dtype is not None else "float"
        specs.append(InputSpec(name, element if is_tensor else str(value.type), shape, is_tensor))
    return specs
