# SPDX-License-Identifier: Apache-2.0
"""Memory for decoded weights."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK_BYTES = 1 << 24
_ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array that begins at a cache line and whose elements are not set."""
    wanted = np.dtype(dtype)
    num_bytes = prod(shape) * wanted.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % _ALIGNMENT
    return memory[skip : skip + num_bytes].view(wanted).reshape(shape)


class FreshMemory:
    """Hands out arrays from large pieces of memory, which live as long as their arrays.

    NumPy asks for huge pages where an array is large. The first write to a huge page costs a small
    part of that to the many small pages that take its place in small arrays.
    """

    def __init__(self) -> None:
        self._chunk = np.empty(0, np.uint8)

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array whose elements are not set."""
        wanted = np.dtype(dtype)
        num_bytes = prod(shape) * wanted.itemsize
        if num_bytes >= _CHUNK_BYTES:
            return aligned_empty(shape, wanted)
        if num_bytes > self._chunk.size:
            self._chunk = aligned_empty((_CHUNK_BYTES,), np.uint8)
        taken = self._chunk[:num_bytes]
        self._chunk = self._chunk[-(-num_bytes // _ALIGNMENT) * _ALIGNMENT :]
        return taken.view(wanted).reshape(shape)
