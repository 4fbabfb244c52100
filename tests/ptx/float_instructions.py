# SPDX-License-Identifier: Apache-2.0
"""Floating-point instructions and conversions (PTX ISA 9.7.3, 9.7.4, 9.7.9)."""

from __future__ import annotations

from tests.ptx.errors import PtxError
from tests.ptx.integer_instructions import Handler
from tests.ptx.parser import Instruction
from tests.ptx.source_writer import SourceWriter, type_of, types_in

_SIGNS = {"add": "+", "sub": "-", "mul": "*"}
_HALF_TYPES = ("f16", "bf16", "f16x2", "bf16x2")
_ROUNDINGS = {"rn", "rni", "rzi", "rmi", "rpi"}


def _arithmetic(w: SourceWriter, i: Instruction) -> None:
    """add, sub, mul, fma, min, max, neg, abs of float32, rounded to nearest, subnormals kept.

    Without `.rn` the assembler of the device may join a product and a sum to one fma; here they
    are rounded one after the other.
    """
    name = i.opcode[0]
    if i.opcode[-1] != "f32" or not set(i.opcode[1:-1]) <= {"rn"}:
        raise PtxError(f"not known: {i.text}")
    inputs = [w.read(o, "f32") for o in i.operands[1:]]
    if name in _SIGNS:
        text = f" {_SIGNS[name]} ".join(inputs)
    elif name in ("fma", "mad"):
        text = f"fma({', '.join(inputs)})"
    else:
        function = {"min": "fmin", "max": "fmax", "neg": "negative", "abs": "abs_"}[name]
        text = f"{function}({', '.join(inputs)})"
    w.write(i.operands[0], text, "f32")


def _halves(w: SourceWriter, i: Instruction) -> None:
    """add, sub, mul, fma of pairs of float16, each rounded to nearest.

    NumPy computes in float32 and rounds again, which gives the same: 24 bits are twice 11 and two.
    An fma is computed in float64, where a product is exact and as good as always its sum.
    """
    name = i.opcode[0]
    known = name in _SIGNS or name == "fma"
    if not known or not set(i.opcode[1:-1]) <= {"rn"} or i.opcode[-1] != "f16x2":
        raise PtxError(f"not known: {i.text}")
    a, b, *rest = (f"halves({w.read(o, 'b32')})" for o in i.operands[1:])
    if name == "fma":
        double, half = w.dtype("f", 8), w.dtype("f", 2)
        text = f"({a}.astype({double}) * {b} + {rest[0]}).astype({half})"
    else:
        text = f"{a} {_SIGNS[name]} {b}"
    w.write(i.operands[0], f"words({text})", "b32")


def _to_half(w: SourceWriter, source: str, target: str) -> str:
    value = w.read(source, "f32")
    if target == "bf16":
        return f"bfloat16_of_float({value})"
    return f"float16_of_float({value}).view({w.dtype('u', 2)})"


def _convert(w: SourceWriter, i: Instruction) -> None:
    parts = [p for p in i.opcode[1:] if p not in _ROUNDINGS]
    rounding = next((p for p in i.opcode[1:] if p in _ROUNDINGS), "")
    if len(parts) != 2:
        raise PtxError(f"not known: {i.text}")
    target, source = parts
    to, value = i.operands[0], i.operands[1]
    if target in ("f16x2", "bf16x2") and source == "f32":
        high, low = (_to_half(w, o, target[:-2]) for o in i.operands[1:])
        four = w.dtype("u", 4)
        w.write(to, f"{high}.astype({four}) << {four}(16) | {low}.astype({four})", "b32")
    elif target in ("f16", "bf16") and source == "f32":
        w.write(to, _to_half(w, value, target), "b16")
    elif target == "f32" and source == "f16":
        w.write(
            to, f"{w.read(value, 'b16')}.view({w.dtype('f', 2)}).astype({w.dtype('f', 4)})", "f32"
        )
    elif target == "f32" and source == "bf16":
        w.write(to, f"float_of_bfloat16({w.read(value, 'b16')})", "f32")
    elif target in _HALF_TYPES or source in _HALF_TYPES:
        raise PtxError(f"not known: {i.text}")
    elif target[0] == "f":
        if source[0] == "f" or rounding not in ("rn", ""):
            raise PtxError(f"not known: {i.text}")
        w.write(to, f"{w.read(value, source)}.astype({w.dtype(*type_of(target))})", target)
    elif source[0] == "f":
        dtype = w.dtype(*type_of(target))
        w.write(to, f"to_integer({w.read(value, source)}, {dtype}, {rounding!r})", target)
    else:
        text = w.read(value, source)
        w.write(to, f"{text}.astype({w.dtype(*type_of(target))})", target)


def handler_of(instruction: Instruction) -> Handler | None:
    """What writes an instruction of floating-point numbers; None of others."""
    name, types = instruction.opcode[0], types_in(instruction)
    if name == "cvt":
        return _convert
    if instruction.opcode[-1] in _HALF_TYPES:
        return _halves
    if types and types[-1] == "f32" and name in (
        "add", "sub", "mul", "fma", "mad", "min", "max", "neg", "abs",
    ):  # fmt: skip
        return _arithmetic
    return None
