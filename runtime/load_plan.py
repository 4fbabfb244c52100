# SPDX-License-Identifier: Apache-2.0
"""Load mode in one call of the library: the plain graph of a model, and its decoded weights.

What the library does not know, and what is damaged, is left to `graph_rewrite` and
`chain_decoder`, which know more and say what is wrong.
"""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
from typing import Any

import numpy as np

from runtime import c_structures, library
from runtime.element_types import DTYPES
from runtime.errors import Status
from runtime.promises import Array

_ALIGNMENT = 64


@dataclasses.dataclass
class Loaded:
    """A model without its decoding, and what it lacks.

    Attributes:
        model: the serialised model; the smaller weights are in it.
        weights: the larger weights by name, contiguous; bfloat16 as ml_dtypes has it.
        needs_folder: whether there is external data of the model's own.
    """

    model: bytes
    weights: dict[str, Array]
    needs_folder: bool


def load_plainly(content: bytes | mmap.mmap, inside_bytes: int, threads: int) -> Loaded | None:
    """Decode the weights of a model.

    Args:
        content: the serialised model.
        inside_bytes: weights up to this size go into the model.
        threads: how many to use; 0 for one per core.

    Returns:
        What they are decoded to, or None where the library cannot do it.
    """
    codec = library.load()
    address = np.frombuffer(content, np.uint8).ctypes.data
    handle, num_bytes = ctypes.c_void_p(), ctypes.c_int64()
    status = codec.tk_load_open(address, len(content), inside_bytes, threads, handle, num_bytes)
    if status != Status.OK:
        return None
    try:
        memory = np.empty(num_bytes.value + _ALIGNMENT, np.uint8)
        memory = memory[-memory.ctypes.data % _ALIGNMENT :][: num_bytes.value]
        if codec.tk_load_decode(handle, memory.ctypes.data, memory.size, threads) != Status.OK:
            return None
        result = c_structures.LoadResult()
        codec.tk_load_get_result(handle, result)
        rest = ctypes.string_at(result.rest, result.rest_bytes)
        return Loaded(rest, _weights(result, memory), bool(result.needs_folder))
    finally:
        codec.tk_load_close(handle)


def _weights(result: Any, memory: Array) -> dict[str, Array]:
    """Return views of the memory."""
    names = ctypes.string_at(result.names, result.names_bytes)
    packed = ctypes.string_at(result.numbers, 8 * result.num_numbers)
    numbers = iter(np.frombuffer(packed, np.int64).tolist())
    weights: dict[str, Array] = {}
    at = 0
    for name_bytes in numbers:
        element_type, offset, rank = next(numbers), next(numbers), next(numbers)
        shape = [next(numbers) for _ in range(rank)]
        name = names[at : at + name_bytes].decode()
        weights[name] = np.ndarray(shape, DTYPES[element_type], memory, offset)
        at += name_bytes
    return weights
