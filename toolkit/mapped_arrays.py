# SPDX-License-Identifier: Apache-2.0
"""Keeps what is as large as a large model in files that have no name and are mapped: the system
then decides how much of it is in memory, and takes back their space when they are no longer used.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import OutputError
from toolkit.kept_folders import cache_folder

if TYPE_CHECKING:
    from passes.schemes import Parameters

Array = npt.NDArray[Any]

MAPPED_FROM = 128 << 20
"""Bytes of all weights of a model from which on its candidates lie in files: smaller ones are
sooner made anew in memory."""
_LEAST = 1 << 16


def keeper(num_bytes: int) -> Callable[[Array], Array]:
    """What arrays of a model whose weights have ``num_bytes`` are to be passed through."""
    return in_file if num_bytes >= MAPPED_FROM else _in_memory


def size_of(arrays: Iterable[Array]) -> int:
    """Bytes of all ``arrays``."""
    return sum(array.nbytes for array in arrays)


def in_file(array: Array) -> Array:
    """A read-only copy of ``array``, any dtype but object, which lies in a file of the user's cache
    folder; small arrays are given back as they are. Raises `OutputError` where nothing can be
    written there."""
    if array.nbytes < _LEAST:
        return array
    home = cache_folder("candidates")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            file.flush()
            mapped = mmap.mmap(file.fileno(), array.nbytes, access=mmap.ACCESS_READ)
    except OSError as error:
        raise OutputError(f"{home}: a candidate cannot be kept there ({error})") from error
    return np.frombuffer(mapped, array.dtype).reshape(array.shape)


def symbols_kept(parameters: Parameters, keep: Callable[[Array], Array]) -> Parameters:
    """``parameters`` with their symbols passed through ``keep``."""
    symbols = getattr(parameters, "symbols", None)
    if not isinstance(symbols, np.ndarray):
        return parameters
    found: Parameters = replace(parameters, symbols=keep(symbols))  # type: ignore[type-var]
    return found


def _in_memory(array: Array) -> Array:
    return array
