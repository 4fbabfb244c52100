# SPDX-License-Identifier: Apache-2.0
"""Outputs of onnxruntime (arrays, sequences, maps, optionals) as a flat mapping of arrays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
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


def as_real(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array itself; complex numbers become a last axis of two."""
    if value.dtype.kind == "c":
        return np.stack([value.real, value.imag], axis=-1)
    return value


BLOCK = 1 << 16
"""Values that are compared at a time: what is computed from them stays in a core's cache."""


def blocks(shape: tuple[int, ...], size: int = BLOCK) -> Iterator[tuple[slice, ...]]:
    """Index of blocks that cover an array, of about `size` values where that can be had: the first
    axis is cut, and the second where others follow it. Rows along the last of several axes stay
    whole."""
    if not shape:
        yield ()
        return
    cut = shape[: max(1, min(2, len(shape) - 1))]
    rest = math.prod(shape[len(cut) :])
    lengths = [1] * len(cut)
    for axis in reversed(range(len(cut))):
        lengths[axis] = min(max(1, size // max(1, rest)), max(1, cut[axis]))
        rest *= max(1, cut[axis])
    starts = [range(0, full, length) for full, length in zip(cut, lengths, strict=True)]
    for place in itertools.product(*starts):
        yield tuple(
            slice(start, min(start + length, full))
            for start, length, full in zip(place, lengths, cut, strict=True)
        )
