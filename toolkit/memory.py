# SPDX-License-Identifier: Apache-2.0
"""Gives memory back to the system between stages."""

from __future__ import annotations

import contextlib
import ctypes
import gc

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


def map_large_blocks() -> None:
    """Has the C library map every block from 1 MiB on by itself, for this whole process, so that it
    goes back to the system when it is freed (glibc; elsewhere nothing).

    glibc raises that bound to 32 MiB after the first large block is freed; from then on tensors
    come from its heap, whose holes stay: a third of the peak of a run.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def release_memory() -> None:
    """Collects garbage and asks the C library to return what it keeps (glibc; elsewhere nothing):
    the arrays of a stage are as large as the model, and the next one brings its own."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
