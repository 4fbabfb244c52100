# SPDX-License-Identifier: Apache-2.0
"""Operands of PTX instructions as Python source that works on NumPy arrays.

A register of n threads is an array [n] of unsigned integers of its width, a predicate one of bool.
What an instruction takes its operands for (signed, float) is a view of that.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

from tests.ptx.errors import PtxError
from tests.ptx.inline_calls import Kernel
from tests.ptx.parser import Instruction

UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED: dict[int, Any] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
FLOAT: dict[int, Any] = {2: np.float16, 4: np.float32, 8: np.float64}
_TYPE = re.compile(r"([bsuf])(8|16|32|64)$")
_REAL = re.compile(r"0[fF]([0-9a-fA-F]{8})$|0[dD]([0-9a-fA-F]{16})$")


def type_of(name: str) -> tuple[str, int]:
    """Kind (b, s, u, f, p) and bytes of a type."""
    if name == "pred":
        return "p", 0
    found = _TYPE.match(name)
    if found is None:
        raise PtxError(f"type not known: {name}")
    return found[1], int(found[2]) // 8


def is_type(name: str) -> bool:
    return name == "pred" or _TYPE.match(name) is not None


def numpy_type(kind: str, size: int) -> Any:
    return {"f": FLOAT, "s": SIGNED}.get(kind, UNSIGNED)[size]


def local_name(register: str) -> str:
    return "v_" + re.sub(r"\W", "_", register.removeprefix("%"))


class SourceWriter:
    """Collects the lines of a block; names of constants go to the globals of its function."""

    def __init__(self, kernel: Kernel, symbols: dict[str, int]) -> None:
        self.kernel = kernel
        self.symbols = symbols  # of variables: addresses in their state spaces
        self.constants: dict[str, Any] = {}
        self.lines: list[str] = []
        self.select = ""  # the name of the threads that a guarded instruction is executed for
        self.number = 0  # of the instruction in the kernel
        self._names = 0

    def line(self, text: str) -> None:
        self.lines.append(text)

    def fresh(self) -> str:
        self._names += 1
        return f"t{self._names}"

    def constant(self, value: Any) -> str:
        name = f"k_{type(value).__name__}_{value!r}"
        name = re.sub(r"\W", "_", name.replace("-", "m"))
        self.constants[name] = value
        return name

    def width(self, register: str) -> int | None:
        """Bytes of a register, None of a predicate; special registers have four."""
        if "@" in register:
            return 8
        return self.kernel.registers.get(register, 4)

    def is_register(self, operand: str) -> bool:
        return operand.startswith("%") or operand in self.kernel.registers

    def immediate(self, operand: str, kind: str, size: int) -> Any:
        if real := _REAL.match(operand):
            if real[1]:
                return np.frombuffer(struct.pack("<I", int(real[1], 16)), np.float32)[0]
            return np.frombuffer(struct.pack("<Q", int(real[2], 16)), np.float64)[0]
        if operand in self.symbols:
            value = self.symbols[operand]
        else:
            try:
                value = int(operand.rstrip("U"), 0)
            except ValueError as error:
                raise PtxError(f"operand not known: {operand}") from error
        bits = np.array([value & (1 << 8 * size) - 1], UNSIGNED[size])
        return bits.view(numpy_type(kind, size))[0]

    def raw(self, register: str) -> str:
        """The array of a register."""
        name = local_name(register)
        return f"{name}[{self.select}]" if self.select else name

    def read(self, operand: str, type_name: str) -> str:
        """An operand as an array, or a number, of NumPy's type for a type of PTX."""
        kind, size = type_of(type_name)
        if kind == "p":
            if self.is_register(operand):
                return self.raw(operand)
            return "True" if int(operand.lstrip("!"), 0) else "False"
        if not self.is_register(operand):
            value = self.immediate(operand, kind, size)
            if kind != "f" and isinstance(value, np.floating):
                value = np.array([value]).view(UNSIGNED[size])[0]
            return self.constant(value)
        text = self.raw(operand)
        width = self.width(operand)
        if width is None:
            raise PtxError(f"{operand} is a predicate")
        if width > size:
            text = f"{text}.astype({self.dtype('u', size)})"
        elif width < size:
            raise PtxError(f"{operand} is narrower than .{type_name}")
        return text if kind in "bu" else f"{text}.view({self.dtype(kind, size)})"

    def dtype(self, kind: str, size: int) -> str:
        value = numpy_type(kind, size)
        name = f"type_{value.__name__}"
        self.constants[name] = value
        return name

    def write(self, register: str, expression: str, type_name: str, whole: bool = True) -> None:
        """Put an array of a type of PTX into a register, extended to its width. `whole` says that
        it is an array, not maybe a number that belongs to all threads."""
        if register == "_":
            return
        kind, size = type_of(type_name)
        if not whole:
            count = f"{self.select}.size" if self.select else "n"
            dtype = "bool" if kind == "p" else self.dtype(kind, size)
            expression = f"full({count}, {expression}, {dtype})"
        if kind != "p":
            width = self.width(register)
            if width is None:
                raise PtxError(f"{register} is a predicate")
            if width > size and kind == "s":
                expression = f"({expression}).astype({self.dtype('s', width)})"
                kind, size = "s", width
            if kind not in "bu":
                expression = f"({expression}).view({self.dtype('u', size)})"
            if width > size:
                expression = f"({expression}).astype({self.dtype('u', width)})"
            elif width < size:
                raise PtxError(f"{register} is narrower than .{type_name}")
        name = local_name(register)
        if not self.select:
            self.line(f"{name} = {expression}")
            return
        self.line(f"{name} = {name}.copy()")
        self.line(f"{name}[{self.select}] = {expression}")


def types_in(instruction: Instruction) -> list[str]:
    """The types of an opcode, in their order."""
    return [part for part in instruction.opcode[1:] if is_type(part)]
