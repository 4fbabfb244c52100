# SPDX-License-Identifier: Apache-2.0
"""Keeps BLAS to one thread while several threads fit weights side by side.

With two threads of its own for each of two callers, OpenBLAS spends most of the processor's time
waiting: fitting all weights of MiniLM took 29 s of it on two busy cores, and 4.4 s with one each.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_LOCK = threading.Lock()
_INSIDE = [0]
_LIMIT = ExitStack()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limits BLAS in all threads until as many have left as entered; the first to enter should be
    the last to leave, since threadpoolctl lets nobody else set the number back. Without that
    package, on which nothing but speed depends, nothing is limited."""
    with _LOCK:
        _INSIDE[0] += 1
        controller = _controller()
        if _INSIDE[0] == 1 and controller is not None:
            _LIMIT.enter_context(controller.limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE[0] -= 1
            if _INSIDE[0] == 0:
                _LIMIT.close()


@functools.cache
def _controller() -> Any:
    """Of the libraries that are loaded now: numpy's and scipy's."""
    import numpy.linalg  # noqa: F401
    import scipy.linalg  # noqa: F401

    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
