# SPDX-License-Identifier: Apache-2.0
"""Gives memory back to the system between stages."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def release_memory() -> None:
    """Collects garbage and asks the C library to return what it keeps (glibc; elsewhere nothing):
    the arrays of a stage are as large as the model, and the next one brings its own."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
