# SPDX-License-Identifier: Apache-2.0
"""Integer, logic, comparison and move instructions (PTX ISA 9.7.1, 9.7.5, 9.7.7 to 9.7.9)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx.errors import PtxError
from tests.ptx.parser import Instruction, split_operands
from tests.ptx.source_writer import SourceWriter, type_of, types_in

Handler = Callable[[SourceWriter, Instruction], None]

COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
               "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # fmt: skip
_LOGIC = {"and": "&", "or": "|", "xor": "^"}


def _binary(w: SourceWriter, i: Instruction) -> None:
    """add, sub, and, or, xor, min, max: of one type; .relu makes of a negative result zero."""
    name, kind = i.opcode[0], types_in(i)[-1]
    a, b = (w.read(o, kind) for o in i.operands[1:])
    text = {
        "add": f"{a} + {b}",
        "sub": f"{a} - {b}",
        "and": f"{a} & {b}",
        "or": f"{a} | {b}",
        "xor": f"{a} ^ {b}",
        "min": f"minimum({a}, {b})",
        "max": f"maximum({a}, {b})",
    }[name]
    if "relu" in i.opcode:
        text = f"maximum({text}, {w.constant(np.int32(0))})"
    w.write(i.operands[0], text, kind)


def _wider(w: SourceWriter, text: str, kind: str) -> str:
    letter, size = type_of(kind)
    if text.startswith("k_"):
        return f"{w.dtype(letter, 2 * size)}({text})"
    return f"{text}.astype({w.dtype(letter, 2 * size)})"


def _multiply(w: SourceWriter, i: Instruction) -> None:
    """mul and mad: .lo, .hi and .wide."""
    kind = types_in(i)[-1]
    letter, size = type_of(kind)
    a, b = (w.read(o, kind) for o in i.operands[1:3])
    result, text = kind, f"{a} * {b}"
    if "wide" in i.opcode or "hi" in i.opcode:
        if size == 8:
            raise PtxError(f"not known: {i.text}")
        text = f"{_wider(w, a, kind)} * {_wider(w, b, kind)}"
        result = f"{letter}{16 * size}"
        if "hi" in i.opcode:
            text, result = f"(({text}) >> {8 * size}).astype({w.dtype(letter, size)})", kind
    if i.opcode[0] == "mad":
        text = f"{text} + {w.read(i.operands[3], result)}"
    w.write(i.operands[0], text, result)


def _divide(w: SourceWriter, i: Instruction) -> None:
    """div and rem towards zero; by zero all bits are set, as on the devices."""
    kind = types_in(i)[-1]
    a, b = (w.read(o, kind) for o in i.operands[1:])
    w.write(i.operands[0], f"divide_{i.opcode[0]}({a}, {b})", kind)


def _unary(w: SourceWriter, i: Instruction) -> None:
    """not, neg, abs, popc, clz, brev."""
    name, kind = i.opcode[0], types_in(i)[-1]
    a = w.read(i.operands[1], kind)
    text = {
        "not": f"~{a}",
        "neg": f"-{a}",
        "abs": f"abs_({a})",
        "popc": f"popc({a})",
        "clz": f"clz({a})",
        "brev": f"brev({a})",
    }[name]
    w.write(i.operands[0], text, "b32" if name in ("popc", "clz") else kind)


def _shift(w: SourceWriter, i: Instruction) -> None:
    """Amounts behind the width shift everything out."""
    kind = types_in(i)[-1]
    _, size = type_of(kind)
    a = w.read(i.operands[1], kind)
    sign = "<<" if i.opcode[0] == "shl" else ">>"
    if w.is_register(i.operands[2]):
        amount = w.read(i.operands[2], "b32")
        w.write(i.operands[0], f"shift_{i.opcode[0]}({a}, {amount})", kind)
        return
    amount_of = int(i.operands[2], 0)
    if amount_of >= 8 * size:
        raise PtxError(f"not known: {i.text}")
    value = w.dtype(type_of(kind)[0], size)
    w.write(i.operands[0], f"{a} {sign} {value}({amount_of})", kind)


def _field(w: SourceWriter, i: Instruction) -> None:
    """bfe, bfi, prmt, lop3, shf: in tests.ptx.bit_operations."""
    name, kind = i.opcode[0], types_in(i)[-1]
    inputs = [w.read(o, kind if n < 2 or name == "lop3" else "b32")
              for n, o in enumerate(i.operands[1:])]  # fmt: skip
    if name == "bfe":
        inputs = [w.read(i.operands[1], kind), *(w.read(o, "b32") for o in i.operands[2:])]
    if name in ("prmt", "shf", "lop3", "bfi") and i.opcode[1:] not in (
        ("b32",), ("l", "wrap", "b32"), ("r", "wrap", "b32"),
    ):  # fmt: skip
        raise PtxError(f"not known: {i.text}")
    function = f"shf_{i.opcode[1]}" if name == "shf" else name
    w.write(i.operands[0], f"{function}({', '.join(inputs)})", kind)


def _compare(w: SourceWriter, i: Instruction) -> None:
    """setp, with one result; .and, .or and .xor join another predicate."""
    comparison, kind = i.opcode[1], types_in(i)[-1]
    joined = next((part for part in i.opcode[2:] if part in _LOGIC), "")
    if "|" in i.operands[0] or len(i.operands) != 3 + bool(joined):
        raise PtxError(f"not known: {i.text}")
    a, b = (w.read(o, kind) for o in i.operands[1:3])
    if kind[0] == "f" and comparison not in COMPARISONS:
        if comparison in ("num", "nan"):
            text = f"{'~' if comparison == 'num' else ''}(isnan({a}) | isnan({b}))"
        elif comparison[:-1] in COMPARISONS and comparison[-1] == "u":
            text = f"({a} {COMPARISONS[comparison[:-1]]} {b}) | isnan({a}) | isnan({b})"
        else:
            raise PtxError(f"not known: {i.text}")
    else:
        text = f"{a} {COMPARISONS[comparison]} {b}"
        if kind[0] == "f" and comparison == "ne":  # ordered
            text = f"({text}) & ~isnan({a}) & ~isnan({b})"
    if joined:
        text = f"({text}) {_LOGIC[joined]} {_predicate(w, i.operands[3])}"
    w.write(i.operands[0], text, "pred")


def _predicate(w: SourceWriter, operand: str) -> str:
    text = w.read(operand.lstrip("!"), "pred")
    return f"~{text}" if operand.startswith("!") else text


def _select(w: SourceWriter, i: Instruction) -> None:
    kind = types_in(i)[-1]
    a, b = (w.read(o, kind) for o in i.operands[1:3])
    w.write(i.operands[0], f"where({_predicate(w, i.operands[3])}, {a}, {b})", kind)


def _predicates(w: SourceWriter, i: Instruction) -> None:
    a, *rest = (_predicate(w, o) for o in i.operands[1:])
    text = f"{a} {_LOGIC[i.opcode[0]]} {rest[0]}" if rest else f"~{a}"
    w.write(i.operands[0], text, "pred")


def _move(w: SourceWriter, i: Instruction) -> None:
    """mov, also between a register and a vector of parts."""
    kind = types_in(i)[-1]
    to, source = i.operands
    _, size = type_of(kind)
    if to.startswith("{"):
        parts = split_operands(to[1:-1])
        part = f"b{8 * size // len(parts)}"
        dtype = w.dtype("u", size // len(parts))
        whole = w.read(source, kind)
        for number, register in enumerate(parts):
            text = f"({whole} >> {8 * size // len(parts) * number}).astype({dtype})"
            w.write(register, text, part)
    elif source.startswith("{"):
        parts = split_operands(source[1:-1])
        bits = 8 * size // len(parts)
        texts = [
            f"({w.read(o, f'b{bits}')}.astype({w.dtype('u', size)}) << {bits * number})"
            for number, o in enumerate(parts)
        ]
        w.write(to, " | ".join(texts), kind)
    else:
        w.write(to, w.read(source, kind), kind, whole=w.is_register(source))


def handler_of(instruction: Instruction) -> Handler | None:
    """What writes an integer instruction; None of others."""
    name, types = instruction.opcode[0], types_in(instruction)
    if types == ["pred"] and name in ("and", "or", "xor", "not"):
        return _predicates
    if name == "mov":
        return _move
    if name in ("setp", "selp"):
        return _compare if name == "setp" else _select
    if (
        not types
        or types[-1][0] == "f"
        or "sat" in instruction.opcode
        or "cc" in instruction.opcode
    ):
        return None
    table: dict[str, Handler] = dict.fromkeys(
        ("add", "sub", "and", "or", "xor", "min", "max"), _binary
    )
    table |= dict.fromkeys(("not", "neg", "abs", "popc", "clz", "brev"), _unary)
    table |= dict.fromkeys(("bfe", "bfi", "prmt", "lop3", "shf"), _field)
    table |= {"mul": _multiply, "mad": _multiply, "div": _divide, "rem": _divide}
    table |= {"shl": _shift, "shr": _shift}
    return table.get(name)
