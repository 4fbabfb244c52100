# SPDX-License-Identifier: Apache-2.0
"""Counts of a launch: instructions by class, wavefronts of shared memory, sectors of global
memory. They are counts of an emulated run of PTX, not of a device's own instructions, and no
times."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any

import numpy as np

from tests.ptx.parser import Instruction
from tests.ptx.program import Block, Program

Array = np.ndarray[Any, Any]
LANES = 32
BANKS, BANK_BYTES, SECTOR_BYTES = 32, 4, 32

CLASSES = (
    "integer", "multiply", "float", "convert", "move", "predicate", "branch", "shared load",
    "shared store", "global load", "global store", "other memory", "warp", "tensor", "barrier",
)  # fmt: skip


def class_of(instruction: Instruction) -> str:
    """The class of an instruction, one of CLASSES."""
    name, kind = instruction.opcode[0], instruction.opcode[-1]
    if name in ("ld", "st"):
        way = "load" if name == "ld" else "store"
        for space in ("shared", "global"):
            if space in instruction.opcode:
                return f"{space} {way}"
        return "other memory"
    if name in ("bra", "ret", "exit"):
        return "branch"
    if name in ("vote", "shfl", "redux", "popc", "activemask"):
        return "warp"
    if name in ("bar", "barrier", "mma"):
        return "tensor" if name == "mma" else "barrier"
    if name in ("mov", "cvta"):
        return "move"
    if name == "cvt":
        return "convert"
    if name in ("setp", "selp") or kind == "pred":
        return "predicate"
    if re.match(r"b?f\d", kind):
        return "float"
    return "multiply" if name in ("mul", "mad", "div", "rem") else "integer"


@dataclasses.dataclass
class Accesses:
    """What warps ask of a memory: requests of warps, the wavefronts or sectors that serve them,
    and the bytes that threads ask for."""

    requests: int = 0
    transactions: int = 0
    bytes: int = 0

    def add(self, requests: int, transactions: int, num_bytes: int) -> None:
        self.requests += requests
        self.transactions += transactions
        self.bytes += num_bytes


class Counters:
    """What a launch has executed, by warps: an instruction counts once for all lanes of a warp
    that execute it together.

    Attributes:
        instructions: executed by warps, by class.
        lanes: the same by threads.
        shared: accesses to shared memory by "load" or "store" and the type, such as "load u16" or
            "store v2.u32", and "called" behind it in device functions; transactions are
            wavefronts.
        of_global: accesses to global memory; transactions are sectors.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._mix = [self._mix_of(block) for block in program.blocks]
        self.instructions: collections.Counter[str] = collections.Counter()
        self.lanes: collections.Counter[str] = collections.Counter()
        self.shared: dict[str, Accesses] = collections.defaultdict(Accesses)
        self.of_global: dict[str, Accesses] = collections.defaultdict(Accesses)

    @staticmethod
    def _mix_of(block: Block) -> dict[str, int]:
        items = block.instructions + ([block.branch] if block.branch is not None else [])
        return dict(collections.Counter(class_of(item) for item in items))

    def _way(self, number: int) -> str:
        instruction = self._program.instructions[number]
        opcode = instruction.opcode
        vector = next((f"{part}." for part in opcode if part in ("v2", "v4")), "")
        called = " called" if instruction.origin else ""
        return f"{'load' if opcode[0] == 'ld' else 'store'} {vector}{opcode[-1]}{called}"

    def executed(self, block: Block, threads: Array) -> None:
        """Threads, in rising order, execute a block."""
        warps = 1 + int(np.count_nonzero(np.diff(threads // LANES)))
        for name, count in self._mix[block.number].items():
            self.instructions[name] += warps * count
            self.lanes[name] += len(threads) * count

    def shared_access(self, number: int, address: Array, size: int, threads: Array) -> None:
        """Wavefronts: in each the banks give one word each, and a word is given to all lanes that
        want it. Accesses of 8 bytes go by half warps, those of 16 by quarters."""
        parts = max(1, size // BANK_BYTES)
        group = threads // (LANES // parts)
        words = (address[:, None] // BANK_BYTES + np.arange(parts)).reshape(-1)
        owners = np.repeat(group, parts)
        distinct = np.unique(np.stack((owners, words)), axis=1)
        banks, words_of_bank = np.unique(
            distinct[0] * BANKS + distinct[1] % BANKS, return_counts=True
        )
        starts = np.flatnonzero(np.diff(banks // BANKS, prepend=-1))
        wavefronts = int(np.maximum.reduceat(words_of_bank, starts).sum())
        requests = len(np.unique(threads // LANES))
        self.shared[self._way(number)].add(requests, wavefronts, size * len(threads))

    def global_access(self, number: int, address: Array, size: int, threads: Array) -> None:
        """Sectors: aligned pieces of 32 bytes that a warp's request touches."""
        warp = threads // LANES
        # Accesses are aligned to their size, at most 32 bytes: each lies in one sector.
        sectors = np.unique(np.stack((warp, address // SECTOR_BYTES)), axis=1).shape[1]
        requests = len(np.unique(warp))
        self.of_global[self._way(number)].add(requests, sectors, size * len(threads))


def total(accesses: dict[str, Accesses], way: str) -> Accesses:
    """Of all types, "load" or "store"."""
    made = Accesses()
    for name, one in accesses.items():
        if name.startswith(way):
            made.add(one.requests, one.transactions, one.bytes)
    return made
