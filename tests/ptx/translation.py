# SPDX-License-Identifier: Apache-2.0
"""Blocks of a program as Python functions on NumPy arrays, made when they are first executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx import (
    bit_operations,
    float_instructions,
    float_operations,
    integer_instructions,
    memory_instructions,
    warp_instructions,
)
from tests.ptx.errors import PtxError
from tests.ptx.parser import Instruction
from tests.ptx.program import TOGETHER, Block, Program, registers_of
from tests.ptx.source_writer import SourceWriter, local_name

Run = Callable[[Any, Any, int, list[Any]], Any]


def _put(old: Any, threads: Any, values: Any) -> Any:
    made = old.copy()
    made[threads] = values
    return made


_NAMES: dict[str, Any] = {
    "full": np.full, "where": np.where, "minimum": np.minimum, "maximum": np.maximum,
    "fmin": np.fmin, "fmax": np.fmax, "negative": np.negative, "isnan": np.isnan, "bool": bool,
    "flatnonzero": np.flatnonzero, "put": _put,
}  # fmt: skip
for _module, _names in (
    (bit_operations, "abs_ divide_div divide_rem popc clz brev shift_shl shift_shr bfe bfi prmt"),
    (bit_operations, "lop3 shf_l shf_r"),
    (float_operations, "fma halves words float_of_bfloat16 bfloat16_of_float float16_of_float"),
    (float_operations, "to_integer"),
    (warp_instructions, "vote shuffle reduce multiply lanes_of_warps"),
):
    _NAMES |= {name: getattr(_module, name) for name in _names.split()}


class Translation:
    """A program with what has been translated of it.

    Attributes:
        places: the place of each register in a launch's list of them.
    """

    def __init__(self, program: Program, symbols: dict[str, int]) -> None:
        self.program = program
        self._symbols = symbols
        names: set[str] = set()
        for block in program.blocks:
            names |= block.live_in | block.live_out
        self.places = {name: number for number, name in enumerate(sorted(names))}
        self._made: dict[tuple[int, bool], Run] = {}
        unset = [n for n in program.blocks[0].live_in if "@" in n]
        if unset:
            raise PtxError(f"{program.kernel.name}: a parameter of a call is read unset: {unset}")

    def function(self, block: Block, whole: bool) -> Run:
        """What executes a block: `f(launch, threads, number of threads, registers)` gives the
        guard of its branch. `whole`: for all threads of the launch."""
        made = self._made.get((block.number, whole))
        if made is None:
            made = self._made[block.number, whole] = self._make(block, whole)
        return made

    def _make(self, block: Block, whole: bool) -> Run:
        kernel = self.program.kernel
        writer = SourceWriter(kernel, self._symbols)
        written: set[str] = set()
        for number, instruction in zip(block.numbers, block.instructions, strict=True):
            writer.number = number
            _write(writer, instruction)
            written |= registers_of(kernel, instruction)[1]
        guard = "None"
        if block.branch is not None and block.branch.guard:
            guard = ("~" if block.branch.negated else "") + local_name(block.branch.guard)
        pick = "" if whole else "[idx]"
        lines = [
            f"{local_name(name)} = R[{self.places[name]}]{pick}" for name in sorted(block.live_in)
        ]
        lines += writer.lines
        for name in sorted(written & block.live_out):
            at, value = self.places[name], local_name(name)
            lines.append(f"R[{at}] = {value if whole else f'put(R[{at}], idx, {value})'}")
        lines.append(f"return {guard}")
        source = "def run(S, idx, n, R):\n" + "".join(f"    {line}\n" for line in lines)
        names = _NAMES | writer.constants
        exec(compile(source, f"<block {block.number} of {kernel.name}>", "exec"), names)
        run: Run = names["run"]
        return run


def _write(writer: SourceWriter, instruction: Instruction) -> None:
    for module in (
        integer_instructions,
        memory_instructions,
        warp_instructions,
        float_instructions,
    ):
        handler = module.handler_of(instruction)
        if handler is not None:
            break
    else:
        raise PtxError(f"{writer.kernel.name}: instruction not known: {instruction.text}")
    if not instruction.guard:
        handler(writer, instruction)
        return
    if instruction.opcode[0] in TOGETHER:
        raise PtxError(f"{writer.kernel.name}: not known with a guard: {instruction.text}")
    chosen = ("~" if instruction.negated else "") + local_name(instruction.guard)
    selected = writer.fresh()
    writer.line(f"{selected} = flatnonzero({chosen})")
    writer.select = selected
    handler(writer, instruction)
    writer.select = ""
