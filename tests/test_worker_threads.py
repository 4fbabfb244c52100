# SPDX-License-Identifier: Apache-2.0
"""Threads of the library that are kept between calls."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runtime.wide import WideReader, encode_wide

SYMBOLS = np.random.default_rng(7).integers(-8, 8, (64, 8, 512)).astype(np.int8)


@pytest.fixture(scope="module")
def reader() -> WideReader:
    return WideReader(encode_wide([SYMBOLS]))


def is_right(reader: WideReader, threads: int) -> bool:
    return bool(np.array_equal(reader.decode_tensor(0, threads=threads), SYMBOLS))


def test_threads_are_kept(reader: WideReader) -> None:
    assert is_right(reader, 5)
    count = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    assert all(is_right(reader, 5) for _ in range(200))
    if count:
        assert len(os.listdir("/proc/self/task")) <= count


def test_calls_at_the_same_time(reader: WideReader) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda index: is_right(reader, 2 + index % 3), range(300)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_has_threads_of_its_own(reader: WideReader) -> None:
    """While other threads decode, so that the pool is in use when the child is made."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            reader.decode_tensor(0, threads=2)

    others = [threading.Thread(target=work) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(10):
            assert _status_of_a_child(reader) == 0
    finally:
        stop.set()
        for other in others:
            other.join()


def _status_of_a_child(reader: WideReader) -> int:
    child = os.fork()
    if child == 0:
        os._exit(0 if all(is_right(reader, 3) for _ in range(5)) else 1)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1
