# SPDX-License-Identifier: Apache-2.0
"""Loads, stores and conversions of addresses (PTX ISA 9.7.9)."""

from __future__ import annotations

from tests.ptx.errors import PtxError
from tests.ptx.integer_instructions import Handler
from tests.ptx.parser import Instruction, split_operands
from tests.ptx.program import address_of, call_param_registers, elements_of
from tests.ptx.source_writer import SourceWriter, type_of

WINDOWS = {"shared": 1 << 56, "local": 2 << 56, "param": 3 << 56}
"""Where the state spaces begin among generic addresses; those of global memory are its own."""

_SPACES = ("global", "shared", "param", "local", "const")
_HINTS = {"volatile", "weak", "relaxed", "cta", "gpu", "sys", "ca", "cg", "cs", "lu", "cv", "wb",
          "wt", "nc", "v2", "v4"}  # fmt: skip


def space_of(instruction: Instruction) -> str:
    """The state space of an access, "generic" where it names none."""
    rest = [p for p in instruction.opcode[1:-1] if p not in _HINTS and "::" not in p]
    if not rest:
        return "generic"
    if len(rest) > 1 or rest[0] not in _SPACES:
        raise PtxError(f"not known: {instruction.text}")
    return "global" if rest[0] == "const" else rest[0]


def _address(w: SourceWriter, operand: str) -> str:
    """The source of an address, an array of int64."""
    base, offset = address_of(operand)
    eight = w.dtype("s", 8)
    if not w.is_register(base):
        if base not in w.symbols:
            raise PtxError(f"address not known: {operand}")
        count = f"{w.select}.size" if w.select else "n"
        return f"full({count}, {w.symbols[base] + offset}, {eight})"
    text = w.raw(base)
    width = w.width(base)
    text = f"{text}.view({eight})" if width == 8 else f"{text}.astype({eight})"
    return f"{text} + {eight}({offset})" if offset else text


def _values(operand: str) -> tuple[str, ...]:
    return split_operands(operand[1:-1]) if operand.startswith("{") else (operand,)


def _threads(w: SourceWriter) -> str:
    return f"idx[{w.select}]" if w.select else "idx"


def _load(w: SourceWriter, i: Instruction) -> None:
    kind, space = i.opcode[-1], space_of(i)
    count, width = elements_of(i)
    registers = _values(i.operands[0])
    base, offset = address_of(i.operands[1])
    if params := call_param_registers(w.kernel, i, i.operands[1]):
        for register, param in zip(registers, params, strict=True):
            w.write(register, w.read(param, kind), kind)
    elif space == "param" and not w.is_register(base):
        dtype = w.dtype(*type_of(kind))
        for n, register in enumerate(registers):
            at = w.symbols[base] + offset + n * width
            w.write(register, f"S.param({at}, {dtype})", kind, whole=False)
    else:
        found = [w.fresh() for _ in registers]
        w.line(
            f"{', '.join(found)}, = S.load_{space}({_address(w, i.operands[1])}, {width}, {count},"
            f" {w.number}, {_threads(w)})"
        )
        dtype = w.dtype(*type_of(kind))
        for register, name in zip(registers, found, strict=True):
            w.write(register, f"{name}.view({dtype})", kind)


def _store(w: SourceWriter, i: Instruction) -> None:
    kind, space = i.opcode[-1], space_of(i)
    _, width = elements_of(i)
    values = _values(i.operands[1])
    if params := call_param_registers(w.kernel, i, i.operands[0]):
        for value, param in zip(values, params, strict=True):
            w.write(param, w.read(value, kind), kind, whole=w.is_register(value))
        return
    if space == "param":
        raise PtxError(f"not known: {i.text}")
    bits = f"b{8 * width}"
    stored = ", ".join(w.read(value, bits) for value in values)
    w.line(
        f"S.store_{space}({_address(w, i.operands[0])}, {width}, ({stored},), {w.number},"
        f" {_threads(w)})"
    )


def _convert_address(w: SourceWriter, i: Instruction) -> None:
    back = i.opcode[1] == "to"
    space = i.opcode[2 if back else 1]
    kind = i.opcode[-1]
    text = w.read(i.operands[1], kind)
    whole = w.is_register(i.operands[1])
    window = WINDOWS.get(space, 0)
    if window:
        eight = w.dtype("u", 8)
        text = f"{text} {'-' if back else '+'} {eight}({window})"
    elif space not in ("global", "const"):
        raise PtxError(f"not known: {i.text}")
    w.write(i.operands[0], text, kind, whole=whole)


def handler_of(instruction: Instruction) -> Handler | None:
    """What writes an access to memory; None of other instructions."""
    return {"ld": _load, "ldu": _load, "st": _store, "cvta": _convert_address}.get(
        instruction.opcode[0]
    )
