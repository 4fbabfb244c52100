# SPDX-License-Identifier: Apache-2.0
"""Launches of kernels: all threads of a grid side by side, as arrays.

Of all threads that are not finished those at the earliest block of the program go on, so that
threads that have parted meet again behind a branch. That is one of the orders that a device
allows; what a kernel computes must not depend on it, which launches in random order show.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.address_spaces import AddressSpaces
from tests.ptx.counters import Counters
from tests.ptx.errors import PtxError
from tests.ptx.loaded_module import LoadedKernel
from tests.ptx.memory import DeviceMemory
from tests.ptx.program import Block
from tests.ptx.warp_instructions import EVERY_LANE, LANES, lanes_of_warps, mask_operand

Array = np.ndarray[Any, Any]
_POISON = {None: (bool, True), 2: (np.uint16, 0xA5A5), 4: (np.uint32, 0xA5A5A5A5),
           8: (np.uint64, 0xA5A5A5A5A5A5A5A5)}  # fmt: skip


class Launch(AddressSpaces):
    """One launch of a kernel. Threads are numbered thread block by thread block, warps being 32
    neighbours; numbers that fill up the last warp of a thread block are no threads."""

    def __init__(
        self,
        kernel: LoadedKernel,
        memory: DeviceMemory,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        dynamic_shared: int,
        params: bytes,
        counters: Counters | None = None,
        races: bool = False,
        order: int | None = None,
    ) -> None:
        count = int(np.prod(block))
        padded = -(-count // LANES) * LANES
        blocks = int(np.prod(grid))
        if not 1 <= count <= kernel.most_threads or blocks < 1 or max(grid[1:]) > 65535:
            raise PtxError(f"{kernel.name}: a grid of {grid} by {block} cannot be launched")
        numbers = np.arange(blocks * padded)
        inside = numbers % padded
        super().__init__(kernel, memory, numbers // padded, dynamic_shared, params, counters, races)
        self._threads_of_block = count
        self._random = None if order is None else np.random.default_rng(order)
        self._all = numbers[inside < count]
        self._registers = self._first_registers(grid, block, inside)

    def _first_registers(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], inside: Array
    ) -> list[Array]:
        special = {"%laneid": inside % LANES, "%warpid": inside // LANES}
        for axis, name in enumerate("xyz"):
            special[f"%tid.{name}"] = inside // int(np.prod(block[:axis])) % block[axis]
            special[f"%ctaid.{name}"] = self._block_of // int(np.prod(grid[:axis])) % grid[axis]
            special[f"%ntid.{name}"] = np.full(self.num_threads, block[axis])
            special[f"%nctaid.{name}"] = np.full(self.num_threads, grid[axis])
        registers = []
        for name in self._kernel.translation.places:
            if name in special:
                registers.append(special[name].astype(np.uint32))
            elif "@" in name:
                registers.append(np.zeros(self.num_threads, np.uint64))
            elif name in self._program.kernel.registers:
                dtype, value = _POISON[self._program.kernel.registers[name]]
                registers.append(np.full(self.num_threads, value, dtype))
            else:
                raise PtxError(f"{self._kernel.name}: register not known: {name}")
        return registers

    def run(self) -> None:
        """Execute all threads to their ends."""
        with np.errstate(all="ignore"):
            self._run()

    def _run(self) -> None:
        blocks, translation = self._program.blocks, self._kernel.translation
        registers = self._registers
        everybody = self._all if len(self._all) == self.num_threads else None
        groups: dict[int, Array] = {0: self._all}
        waiting: set[int] = set()

        def add(number: int, threads: Array) -> None:
            waiting.discard(number)
            if number in groups:
                threads = np.sort(np.concatenate((groups[number], threads)))
            if len(threads) == self.num_threads:
                threads = self._all
            groups[number] = threads

        while groups:
            ready = groups.keys() - waiting if waiting else groups
            if not ready:
                self._deadlock(groups)
            if self._random is None:
                number = min(ready)
                threads = groups.pop(number)
            else:
                number, threads = self._pick(sorted(ready), groups)
            block = blocks[number]
            if block.together is not None:
                threads, rest = self._meet(block, threads)
                if len(rest):
                    alone = number not in groups
                    add(number, rest)
                    if alone:
                        waiting.add(number)
                if not len(threads):
                    continue
                if len(threads) == self.num_threads:
                    threads = self._all
            if self._counters is not None:
                self._counters.executed(block, threads)
            whole = threads is everybody
            guard = translation.function(block, whole)(self, threads, len(threads), registers)
            if block.branch is None:
                add(number + 1, threads)
                continue
            if guard is None:
                taken, other = threads, threads[:0]
            else:
                chosen = np.count_nonzero(guard)
                if chosen == len(threads):
                    taken, other = threads, threads[:0]
                elif chosen == 0:
                    taken, other = threads[:0], threads
                else:
                    taken, other = threads[guard], threads[~guard]
            if len(taken) and block.target >= 0:
                add(block.target, taken)
            if len(other):
                add(number + 1, other)

    def _pick(self, ready: list[int], groups: dict[int, Array]) -> tuple[int, Array]:
        """Any of the blocks, and the threads there of all or some warps."""
        assert self._random is not None
        number = ready[int(self._random.integers(len(ready)))]
        threads = groups.pop(number)
        warps = self._random.random(self.num_threads // LANES) < self._random.choice((0.5, 1))
        chosen = warps[threads // LANES]
        if chosen.any() and not chosen.all():
            groups[number] = threads[~chosen]
            threads = threads[chosen]
        return number, threads

    def _meet(self, block: Block, threads: Array) -> tuple[Array, Array]:
        """The threads at an instruction that can execute it, and those that wait for others."""
        instruction = block.together
        assert instruction is not None
        if instruction.opcode[0] in ("bar", "barrier") and instruction.opcode[1] != "warp":
            return self._meet_block(block, threads)
        lanes = lanes_of_warps(self.num_threads, threads)[threads // LANES]
        mask = self._mask(block, threads)
        own = (mask >> (threads % LANES).astype(np.uint32)) & np.uint32(1)
        if not own.all():
            self._fail(block.numbers[0], threads, int(np.flatnonzero(own == 0)[0]),
                       "executed by a thread that its mask does not name")  # fmt: skip
        ready = (lanes & mask) == mask
        if ready.all():
            going, rest = threads, threads[:0]
        else:
            going, rest = threads[ready], threads[~ready]
        if self._races is not None and instruction.opcode[:2] == ("bar", "warp") and len(going):
            together = mask[ready] == EVERY_LANE
            self._races.synchronize_warp(np.unique(going[together] // LANES))
        return going, rest

    def _mask(self, block: Block, threads: Array) -> Array:
        instruction = block.together
        assert instruction is not None
        operand = mask_operand(instruction)
        if operand is None:
            return np.full(len(threads), EVERY_LANE, np.uint32)
        if operand.startswith("%"):
            return self._registers[self._kernel.translation.places[operand]][threads]
        return np.full(len(threads), int(operand, 0) & EVERY_LANE, np.uint32)

    def _meet_block(self, block: Block, threads: Array) -> tuple[Array, Array]:
        instruction = block.together
        assert instruction is not None
        if instruction.operands != ("0",):
            self._fail(block.numbers[0], threads, 0, "barrier not known")
        there = np.bincount(self._block_of[threads], minlength=int(self._block_of[-1]) + 1)
        complete = there == self._threads_of_block
        if self._races is not None:
            self._races.synchronize_block(np.flatnonzero(complete))
        ready = complete[self._block_of[threads]]
        return threads[ready], threads[~ready]

    def _deadlock(self, groups: dict[int, Array]) -> None:
        number = min(groups)
        block, threads = self._program.blocks[number], groups[number]
        self._fail(block.numbers[0], threads, 0,
                   "waits for threads that are finished or wait elsewhere")  # fmt: skip
