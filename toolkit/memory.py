# SPDX-License-Identifier: Apache-2.0
"""Gives memory back to the system between stages."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20
_SMALLER = 1 << 18

_asked = False


def map_large_blocks() -> None:
    """Has the C library map every block from 1 MiB on by itself, for this whole process, so that it
    goes back to the system when it is freed (glibc; elsewhere nothing).

    glibc raises that bound to 32 MiB after the first large block is freed; from then on tensors
    come from its heap, whose holes stay: a third of the peak of a run.
    """
    global _asked
    _asked = True
    _map_from(_LARGE)


@contextlib.contextmanager
def smaller_blocks_mapped() -> Iterator[None]:
    """Maps blocks from 256 KiB on for a while, in a process that asked to map large ones: for
    stages that run a model few times, since mapping a block anew costs more than finding it."""
    if _asked:
        _map_from(_SMALLER)
    try:
        yield
    finally:
        if _asked:
            _map_from(_LARGE)


def _map_from(num_bytes: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, num_bytes)


def release_memory() -> None:
    """Collects garbage and asks the C library to return what it keeps (glibc; elsewhere nothing):
    the arrays of a stage are as large as the model, and the next one brings its own."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
