# SPDX-License-Identifier: Apache-2.0
"""A kernel as basic blocks, with the registers that are alive between them."""

from __future__ import annotations

import dataclasses
import re

from tests.ptx.errors import PtxError
from tests.ptx.inline_calls import Kernel
from tests.ptx.parser import Instruction

# Instructions that name the threads that must take part: a block begins there.
TOGETHER = {"bar", "barrier", "vote", "shfl", "redux", "mma", "match"}
_NO_RESULT = {"st", "bra", "bar", "barrier", "red", "ret", "exit", "membar", "fence", "prefetch"}
_REGISTER = re.compile(r"%[$\w]+(?:\.[xyz])?")
_ADDRESS = re.compile(r"\[\s*([$%\w]+)\s*(?:\+\s*(-?\w+))?\s*\]$")


@dataclasses.dataclass
class Block:
    """Instructions that are executed one after the other. `numbers` are their places in the
    kernel. `branch` ends the block where it ends with one; then `target` is where it goes, -1 the
    end of the thread. `live_in` and `written` are names of registers."""

    number: int
    instructions: list[Instruction] = dataclasses.field(default_factory=list)
    numbers: list[int] = dataclasses.field(default_factory=list)
    branch: Instruction | None = None
    target: int = -1
    live_in: set[str] = dataclasses.field(default_factory=set)
    live_out: set[str] = dataclasses.field(default_factory=set)

    @property
    def together(self) -> Instruction | None:
        """The instruction that the block begins with, where threads must be there together."""
        first = self.instructions[0] if self.instructions else None
        return first if first is not None and first.opcode[0] in TOGETHER else None

    @property
    def followers(self) -> list[int]:
        if self.branch is None:
            return [self.number + 1]
        if self.branch.guard:
            return [self.target, self.number + 1]
        return [self.target]


@dataclasses.dataclass
class Program:
    """A kernel to be run."""

    kernel: Kernel
    blocks: list[Block]
    instructions: list[Instruction]


def address_of(operand: str) -> tuple[str, int]:
    """Base and offset of `[base+offset]`."""
    found = _ADDRESS.match(operand)
    if found is None:
        raise PtxError(f"address not known: {operand}")
    return found[1], int(found[2] or "0", 0)


def elements_of(instruction: Instruction) -> tuple[int, int]:
    """How many values an access has, and the bytes of each."""
    count = next((int(p[1:]) for p in instruction.opcode if p in ("v2", "v4", "v8")), 1)
    return count, int(re.sub(r"\D", "", instruction.opcode[-1])) // 8


def call_param_registers(kernel: Kernel, instruction: Instruction, operand: str) -> list[str]:
    """The registers that stand for parameters of a call at an address; none for other addresses."""
    base, offset = address_of(operand)
    if base not in kernel.call_params:
        return []
    count, width = elements_of(instruction)
    return [f"%{base}@{offset + width * n}" for n in range(count)]


def registers_of(kernel: Kernel, instruction: Instruction) -> tuple[set[str], set[str]]:
    """The registers that an instruction reads and those that it writes."""
    opcode, operands = instruction.opcode, instruction.operands
    reads, writes = set(), set()
    if instruction.guard:
        reads.add(instruction.guard)
    has_result = opcode[0] not in _NO_RESULT
    for place, operand in enumerate(operands):
        found = set(_REGISTER.findall(operand))
        if operand.startswith("["):
            params = call_param_registers(kernel, instruction, operand)
            if params and opcode[0] == "st":
                writes |= set(params)
                found = set()
            elif params:
                found = set(params)
        if place == 0 and has_result:
            writes |= found
        else:
            reads |= found
    if instruction.guard and opcode[0] != "bra":
        reads |= writes  # kept where the guard does not hold
    return reads, writes


def _split(kernel: Kernel) -> tuple[list[Block], dict[str, int]]:
    blocks, labels = [Block(0)], {}

    def begin() -> None:
        if blocks[-1].instructions or blocks[-1].branch:
            blocks.append(Block(len(blocks)))

    number = 0
    for item in kernel.body:
        if isinstance(item, str):
            begin()
            labels[item] = blocks[-1].number
            continue
        if item.opcode[0] in TOGETHER:
            begin()
        if item.opcode[0] in ("bra", "ret", "exit"):
            blocks[-1].branch = item
            begin()
        else:
            blocks[-1].instructions.append(item)
            blocks[-1].numbers.append(number)
        number += 1
    if not blocks[-1].instructions and blocks[-1].branch is None:
        blocks[-1].branch = Instruction(("ret",), (), "", False, "ret")
    return blocks, labels


def make_program(kernel: Kernel) -> Program:
    """Blocks and liveness of a kernel."""
    blocks, labels = _split(kernel)
    used: list[tuple[set[str], set[str]]] = []
    for block in blocks:
        if block.branch is not None and block.branch.opcode[0] == "bra":
            block.target = labels[block.branch.operands[0]]
        first_reads: set[str] = set()
        written: set[str] = set()
        for instruction in block.instructions:
            reads, writes = registers_of(kernel, instruction)
            first_reads |= reads - written
            written |= writes
        if block.branch is not None and block.branch.guard:
            first_reads |= {block.branch.guard} - written
        used.append((first_reads, written))
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            out: set[str] = set()
            for follower in block.followers:
                if 0 <= follower < len(blocks):
                    out |= blocks[follower].live_in
            reads, written = used[block.number]
            into = reads | (out - written)
            if out != block.live_out or into != block.live_in:
                block.live_out, block.live_in = out, into
                changed = True
    instructions = [item for item in kernel.body if isinstance(item, Instruction)]
    return Program(kernel, blocks, instructions)
