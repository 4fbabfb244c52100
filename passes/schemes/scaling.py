# SPDX-License-Identifier: Apache-2.0
"""The range, the norm and the representable scale of what shares a scale (Polino, Pascanu, Alistarh
2018, section 3.1: linear, absmax and absnorm scaling)."""

from __future__ import annotations

from typing import Literal

import numpy as np

Scaling = Literal["absmax", "linear", "absnorm"]

_LARGEST = {"float16": 65504.0, "bfloat16": (2 - 2.0**-7) * 2.0**127}
_LEAST = {"float16": 2.0**-24, "bfloat16": 2.0**-133}


def ends_of(folded: np.ndarray, kept: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value, float64 [n], per index of the middle axis of ``folded`` [before, n,
    inside]; elements that are not ``kept`` do not count, and 0 stands for none."""
    if kept is None:
        smallest, largest = folded.min(axis=(0, 2)), folded.max(axis=(0, 2))
        return smallest.astype(np.float64), largest.astype(np.float64)
    smallest = np.min(folded, axis=(0, 2), where=kept, initial=np.inf).astype(np.float64)
    largest = np.max(folded, axis=(0, 2), where=kept, initial=-np.inf).astype(np.float64)
    none = ~kept.any(axis=(0, 2))
    return np.where(none, 0.0, smallest), np.where(none, 0.0, largest)


def norm_of(folded: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """Euclidean norm, float64 [n], per index of the middle axis, of the elements ``kept``."""
    if kept is not None:
        folded = np.where(kept, folded, np.float32(0))
    squares = np.einsum("abc,abc->b", folded, folded, dtype=np.float64)
    return np.asarray(np.sqrt(squares))


def representable_scale(scale: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float32 scales, 1 for zero; for a float16 weight ones that float16 holds too, so that both
    forms of its chain agree."""
    positive = np.where(scale > 0, scale, 1.0)
    if dtype == np.float16:
        half = np.clip(positive, 2.0**-24, 65504.0).astype(np.float16)
        return half.astype(np.float32)
    single = np.finfo(np.float32)
    return np.clip(positive, float(single.tiny), float(single.max)).astype(np.float32)


def largest_finite(dtype: np.dtype) -> float:
    """The largest finite number of float32, float16 or bfloat16."""
    return _LARGEST.get(dtype.name, float(np.finfo(np.float32).max))


def least_positive(dtype: np.dtype) -> float:
    """The least positive number of float32, float16 or bfloat16, a power of two."""
    return _LEAST.get(dtype.name, 2.0**-149)
