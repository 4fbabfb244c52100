# SPDX-License-Identifier: Apache-2.0
"""Outputs of onnxruntime (arrays, sequences, maps, optionals) as a flat mapping of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Outputs = dict[str, npt.NDArray[Any]]
"""Every array of one run; the parts of a sequence `s` are named `s[0]`, `s[1]`, ..."""


def flatten(values: Mapping[str, Any]) -> Outputs:
    """Every array among `values` by name; an absent optional is left out."""
    flat: Outputs = {}
    for name, value in values.items():
        _flatten_into(flat, name, value)
    return flat


def _flatten_into(flat: Outputs, name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, Mapping):
        keys = sorted(value, key=str)
        flat[name] = np.asarray([value[key] for key in keys])
        if keys and flat[name].dtype.kind != "f":
            flat[name] = flat[name].astype(object)
    elif isinstance(value, list):
        if value and all(isinstance(part, Mapping) for part in value):
            # The maps of a classifier, one per sample: a matrix of scores.
            rows: list[Any] = [[row[key] for key in sorted(row, key=str)] for row in value]
            flat[name] = np.asarray(rows)
            return
        flat[f"{name}.length"] = np.asarray([len(value)])
        for index, part in enumerate(value):
            _flatten_into(flat, f"{name}[{index}]", part)
    else:
        flat[name] = np.asarray(value)


def as_float(value: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """float64 copy; complex numbers become a last axis of two, ml_dtypes floats are widened."""
    if value.dtype.kind == "c":
        value = np.stack([value.real, value.imag], axis=-1)
    return value.astype(np.float64)
