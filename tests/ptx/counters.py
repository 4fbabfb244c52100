# SPDX-License-Identifier: Apache-2.0
"""Counts of a launch: instructions by class, wavefronts of shared memory, sectors of global
memory. They are counts of an emulated run of PTX, not of a device's own instructions, and no
times."""

from __future__ import annotations

import collections
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


class Counters:
    """What a launch has executed, by warps: an instruction counts once for all lanes of a warp
    that execute it together.

    Attributes:
        instructions: executed by warps, by class.
        lanes: the same by threads.
        wavefronts, shared_requests: of shared memory by class, and the requests of warps.
        sectors, global_requests, global_bytes: of global memory by class; bytes are those that
            threads ask for.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._mix = [self._mix_of(block) for block in program.blocks]
        self.instructions: collections.Counter[str] = collections.Counter()
        self.lanes: collections.Counter[str] = collections.Counter()
        self.wavefronts: collections.Counter[str] = collections.Counter()
        self.shared_requests: collections.Counter[str] = collections.Counter()
        self.sectors: collections.Counter[str] = collections.Counter()
        self.global_requests: collections.Counter[str] = collections.Counter()
        self.global_bytes: collections.Counter[str] = collections.Counter()

    @staticmethod
    def _mix_of(block: Block) -> dict[str, int]:
        items = block.instructions + ([block.branch] if block.branch is not None else [])
        return dict(collections.Counter(class_of(item) for item in items))

    def executed(self, block: Block, threads: Array) -> None:
        """Threads, in rising order, execute a block."""
        warps = 1 + int(np.count_nonzero(np.diff(threads // LANES)))
        for name, count in self._mix[block.number].items():
            self.instructions[name] += warps * count
            self.lanes[name] += len(threads) * count

    def shared_access(self, number: int, address: Array, size: int, threads: Array) -> None:
        """Wavefronts: in each the banks give one word each, and words are given to all lanes that
        want them. Accesses of 8 bytes go by half warps, those of 16 by quarters."""
        name = class_of(self._program.instructions[number])
        if name == "other memory":
            name = (
                "shared load"
                if self._program.instructions[number].opcode[0] == "ld"
                else "shared store"
            )
        groups = max(1, size // BANK_BYTES)
        group = threads // (LANES // groups)
        words = (address[:, None] // BANK_BYTES + np.arange(groups)).reshape(-1)
        owners = np.repeat(group, groups)
        distinct = np.unique(np.stack((owners, words)), axis=1)
        bank = distinct[0] * BANKS + distinct[1] % BANKS
        banks, words_of_bank = np.unique(bank, return_counts=True)
        starts = np.flatnonzero(np.diff(banks // BANKS, prepend=-1))
        self.wavefronts[name] += int(np.maximum.reduceat(words_of_bank, starts).sum())
        self.shared_requests[name] += len(np.unique(threads // LANES))

    def global_access(self, number: int, address: Array, size: int, threads: Array) -> None:
        """Sectors: aligned pieces of 32 bytes that a warp's request touches."""
        name = class_of(self._program.instructions[number])
        if name == "other memory":
            name = (
                "global load"
                if self._program.instructions[number].opcode[0] == "ld"
                else "global store"
            )
        warp = threads // LANES
        # Accesses are aligned to their size, at most 32 bytes: each lies in one sector.
        sectors = np.unique(np.stack((warp, address // SECTOR_BYTES)), axis=1)
        self.sectors[name] += sectors.shape[1]
        self.global_requests[name] += len(np.unique(warp))
        self.global_bytes[name] += size * len(threads)
