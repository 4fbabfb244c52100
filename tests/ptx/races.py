# SPDX-License-Identifier: Apache-2.0
"""Races: bytes that two threads use, one of them writing, with nothing between that orders them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.errors import BadAccessError

Array = np.ndarray[Any, Any]
LANES = 32


class _Uses:
    """The last use of each byte: the thread, and how many barriers of its thread block and of its
    warp there had been. `more`: 1 where several threads of a warp are meant, 2 of several warps."""

    def __init__(self, size: int) -> None:
        self.thread = np.full(size, -1, np.int32)
        self.block_time = np.zeros(size, np.int32)
        self.warp_time = np.zeros(size, np.int32)
        self.more = np.zeros(size, np.int8)


class SharedRaces:
    """Follows the accesses of a launch to shared memory: the barriers of thread blocks and of whole
    warps order them.

    Args:
        size: bytes of shared memory of all thread blocks together.
        block_of: the thread block of each thread.
    """

    def __init__(self, size: int, block_of: Array) -> None:
        self._reads, self._writes = _Uses(size), _Uses(size)
        self._block_of = block_of
        self._block_time = np.ones(int(block_of.max()) + 1, np.int32)
        self._warp_time = np.ones(len(block_of) // LANES, np.int32)

    def synchronize_block(self, blocks: Array) -> None:
        """All threads of these thread blocks have met."""
        self._block_time[blocks] += 1

    def synchronize_warp(self, warps: Array) -> None:
        """All threads of these warps have met."""
        self._warp_time[warps] += 1

    def _conflicts(self, uses: _Uses, at: Array, thread: Array) -> Array:
        """Where another thread's last use is not ordered before one of `thread` now."""
        other = uses.thread[at]
        more = uses.more[at]
        warp = thread // LANES
        same_warp = (other // LANES == warp) & (more < 2)
        unordered = (other >= 0) & (uses.block_time[at] == self._block_time[self._block_of[thread]])
        late = uses.warp_time[at] == self._warp_time[warp]
        return unordered & np.where(same_warp, late & ((other != thread) | (more > 0)), True)

    def _raise(self, conflict: Array, what: str, uses: _Uses, at: Array) -> None:
        if conflict.any():
            rows, columns = np.nonzero(conflict)
            other = int(uses.thread[at[rows[0], columns[0]]])
            raise BadAccessError(f"{what} thread number {other} without a barrier", int(rows[0]))

    def read(self, offset: Array, size: int, thread: Array) -> None:
        """Each thread reads bytes from its offset in all of shared memory."""
        at = offset[:, None] + np.arange(size)
        threads = np.broadcast_to(thread[:, None], at.shape)
        self._raise(self._conflicts(self._writes, at, threads), "reads what is written by",
                    self._writes, at)  # fmt: skip
        uses = self._reads
        warp = threads // LANES
        block_time = self._block_time[self._block_of[threads]]
        known = (uses.thread[at] >= 0) & (uses.block_time[at] == block_time)
        other_warp = known & ((uses.thread[at] // LANES != warp) | (uses.more[at] == 2))
        others = known & (uses.warp_time[at] == self._warp_time[warp]) & (
            (uses.thread[at] != threads) | (uses.more[at] > 0)
        )  # fmt: skip
        more = np.where(other_warp, 2, others).astype(np.int8)
        uses.thread[at] = threads
        uses.block_time[at] = block_time
        uses.warp_time[at] = self._warp_time[warp]
        uses.more[at] = 0
        np.maximum.at(uses.more, at, more)
        last = uses.thread[at]
        several = np.where(last // LANES != warp, 2, last != threads).astype(np.int8)
        if several.any():
            np.maximum.at(uses.more, at, several)

    def write(self, offset: Array, size: int, thread: Array) -> None:
        """Each thread writes bytes from its offset in all of shared memory."""
        at = offset[:, None] + np.arange(size)
        threads = np.broadcast_to(thread[:, None], at.shape)
        self._raise(self._conflicts(self._writes, at, threads), "overwrites what is written by",
                    self._writes, at)  # fmt: skip
        self._raise(self._conflicts(self._reads, at, threads), "overwrites what is read by",
                    self._reads, at)  # fmt: skip
        uses = self._writes
        uses.thread[at] = threads
        self._raise(uses.thread[at] != threads, "writes where in the same instruction writes",
                    uses, at)  # fmt: skip
        uses.block_time[at] = self._block_time[self._block_of[threads]]
        uses.warp_time[at] = self._warp_time[threads // LANES]


class GlobalRaces:
    """Follows which thread of a launch has written each byte of a device's memory. Nothing orders
    the threads of a launch there, so no other one may write or read it.

    Args:
        size: bytes of the memory.
    """

    def __init__(self, size: int) -> None:
        self._writer = np.zeros(size, np.int64)  # numbers of threads over all launches, from 1
        self._begin = 1

    def begin_launch(self, num_threads: int) -> int:
        """What is added to the numbers of the launch's threads."""
        begin = self._begin
        self._begin += num_threads
        return begin

    def _others(self, at: Array, thread: Array, begin: int) -> Array:
        writer = self._writer[at]
        return (writer >= begin) & (writer != thread[:, None] + begin)

    def _raise(self, conflict: Array, what: str, at: Array, begin: int) -> None:
        if conflict.any():
            rows, columns = np.nonzero(conflict)
            other = int(self._writer[at[rows[0], columns[0]]]) - begin
            raise BadAccessError(f"{what} thread number {other}", int(rows[0]))

    def read(self, offset: Array, size: int, thread: Array, begin: int) -> None:
        at = offset[:, None] + np.arange(size)
        conflict = self._others(at, thread, begin)
        self._raise(conflict, "reads global memory that is written by", at, begin)

    def write(self, offset: Array, size: int, thread: Array, begin: int) -> None:
        at = offset[:, None] + np.arange(size)
        conflict = self._others(at, thread, begin)
        self._raise(conflict, "overwrites global memory that is written by", at, begin)
        self._writer[at] = thread[:, None] + begin
        conflict = self._others(at, thread, begin)
        self._raise(
            conflict, "writes global memory where in the same instruction writes", at, begin
        )
