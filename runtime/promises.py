# SPDX-License-Identifier: Apache-2.0
"""Arrays that are made later, many at once on several threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

_WORTH_THREADS = 1 << 19  # elements in all: some milliseconds, of which threads cost a tenth
_LARGE = 1 << 20  # elements of a tensor that is divided among all threads


class NotReadyError(Exception):
    """An array is asked for before its promise is kept."""


class Promise:
    """An array to be.

    Args:
        make: makes the array on a number of threads, 1 or as many as the maker of promises has.
        size: about how many elements it has.
    """

    def __init__(self, make: Callable[[int], Array], size: int) -> None:
        self.size = size
        self._make = make
        self._array: Array | None = None

    def array(self) -> Array:
        """Return the array. Raises `NotReadyError` before it is made."""
        if self._array is None:
            raise NotReadyError
        return self._array

    def keep(self, threads: int) -> None:
        """Make the array."""
        self._array = self._make(threads)


class Promises:
    """Promises that wait to be kept.

    Args:
        threads: how many threads to use, at least 1.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._waiting: list[Promise] = []

    def add(self, make: Callable[[int], Array], size: int) -> Promise:
        """Promise an array."""
        promise = Promise(make, size)
        self._waiting.append(promise)
        return promise

    def keep_all(self) -> None:
        """Make all arrays that wait. Raises what the making of one raises."""
        waiting, self._waiting = sorted(self._waiting, key=lambda p: -p.size), []
        small = deque(promise for promise in waiting if promise.size < _LARGE)
        for promise in waiting[: len(waiting) - len(small)]:
            promise.keep(self._threads)
        worth = sum(promise.size for promise in small) >= _WORTH_THREADS
        failures: list[Exception] = []
        others = [
            threading.Thread(target=_keep_each, args=(small, failures))
            for _ in range(min(self._threads, len(small)) - 1 if worth else 0)
        ]
        for thread in others:
            thread.start()
        _keep_each(small, failures)
        for thread in others:
            thread.join()
        if failures:
            raise failures[0]


def _keep_each(waiting: deque[Promise], failures: list[Exception]) -> None:
    """Keep promises until none waits or one fails; several threads share the arguments."""
    while not failures:
        try:
            promise = waiting.popleft()
        except IndexError:
            return
        try:
            promise.keep(1)
        except Exception as error:  # raised again by the thread that waits for the others
            failures.append(error)
