# SPDX-License-Identifier: Apache-2.0
"""Instructions that threads of a warp execute together (PTX ISA 9.7.13 and 9.7.14).

Arrays are those of the threads that are there, `threads` their numbers; warps are 32 neighbouring
numbers. That the threads which an instruction names are there has been checked before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.errors import PtxError
from tests.ptx.integer_instructions import Handler
from tests.ptx.parser import Instruction, split_operands
from tests.ptx.source_writer import SourceWriter

Array = np.ndarray[Any, Any]
LANES = 32
EVERY_LANE = 0xFFFFFFFF


def lanes_of_warps(num_threads: int, threads: Array, chosen: Array | None = None) -> Array:
    """A bit for each lane that is there (and chosen), uint32 [warps]."""
    there = np.zeros(num_threads, bool)
    there[threads] = True if chosen is None else chosen
    packed = np.packbits(there.reshape(-1, LANES), axis=1, bitorder="little")
    return packed.view(np.uint32).reshape(-1)


def vote(kind: str, num_threads: int, threads: Array, chosen: Array, mask: Array) -> Array:
    """vote.sync: `ballot` uint32, `any`, `all` and `uni` bool."""
    bits = lanes_of_warps(num_threads, threads, chosen)[threads // LANES] & mask
    if kind == "ballot":
        return bits
    if kind == "any":
        return bits != 0
    return bits == mask if kind == "all" else (bits == mask) | (bits == 0)


def shuffle(
    kind: str, num_threads: int, threads: Array, values: Array, where: Any, limits: Any, mask: Array
) -> tuple[Array, Array]:
    """shfl.sync of 32-bit values: what the other lane has, and whether there is such a lane."""
    lane = (threads % LANES).astype(np.int64)
    where = np.asarray(where).astype(np.int64) & 31
    segment, clamp = np.asarray(limits).astype(np.int64) >> 8 & 31, np.asarray(limits) & 31
    most = (lane & segment) | (clamp.astype(np.int64) & ~segment)
    least = lane & segment
    if kind == "up":
        other, fine = lane - where, lane - where >= most
    elif kind == "down":
        other, fine = lane + where, lane + where <= most
    elif kind == "bfly":
        other, fine = lane ^ where, (lane ^ where) <= most
    else:
        other = least | (where & ~segment)
        fine = other <= most
    source = np.where(fine, other, lane)
    if ((mask >> source.astype(np.uint32) & 1) == 0).any():
        raise PtxError("a lane is read that takes no part")
    all_values = np.zeros(num_threads, values.dtype)
    all_values[threads] = values
    return all_values[threads // LANES * LANES + source], fine


def reduce(kind: str, num_threads: int, threads: Array, values: Array, mask: Array) -> Array:
    """redux.sync: add, min, max, and, or, xor over the lanes of the mask."""
    lanes = np.zeros((num_threads // LANES, LANES), values.dtype)
    lanes.reshape(-1)[threads] = values
    result = np.empty_like(values)
    function = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
                "or": np.bitwise_or, "xor": np.bitwise_xor}[kind]  # fmt: skip
    for one in np.unique(mask):
        members = np.flatnonzero(int(one) >> np.arange(LANES) & 1)
        reduced = function.reduce(lanes[:, members], axis=1)
        own = mask == one
        result[own] = reduced[threads[own] // LANES]
    return result


def multiply(threads: Array, a: list[Array], b: list[Array], c: list[Array]) -> list[Array]:
    """mma.sync m16n8k8 or m16n8k16 of float16 with float32 sums, for whole warps.

    `a`, `b`: uint32 registers with two float16 numbers; `c`: float32. Products are exact, their
    sum is rounded once; the hardware's rounding is not specified.
    """
    warps = len(threads) // LANES
    lane = np.arange(LANES)
    group, inside = lane // 4, lane % 4 * 2
    inner = 4 * len(a)
    left = np.zeros((warps, 16, inner))
    right = np.zeros((warps, inner, 8))
    total = np.zeros((warps, 16, 8))
    for n, register in enumerate(a):
        pairs = register.view(np.float16).reshape(warps, LANES, 2)
        for high in range(2):
            left[:, group + n % 2 * 8, inside + high + n // 2 * 8] = pairs[:, :, high]
    for n, register in enumerate(b):
        pairs = register.view(np.float16).reshape(warps, LANES, 2)
        for high in range(2):
            right[:, inside + high + 8 * n, group] = pairs[:, :, high]
    for n, register in enumerate(c):
        total[:, group + n // 2 * 8, inside + n % 2] = register.reshape(warps, LANES)
    total = (total + left @ right).astype(np.float32)
    return [
        np.ascontiguousarray(total[:, group + n // 2 * 8, inside + n % 2]).reshape(-1)
        for n in range(4)
    ]


def mask_operand(instruction: Instruction) -> str | None:
    """The operand that names the lanes which take part; None where that is all of the warp."""
    name = instruction.opcode[0]
    if name == "bar":
        return instruction.operands[0]
    return None if name == "mma" else instruction.operands[-1]


def _mask(w: SourceWriter, i: Instruction) -> str:
    operand = mask_operand(i)
    assert operand is not None
    text = w.read(operand, "b32")
    return text if w.is_register(operand) else f"full(n, {text}, {w.dtype('u', 4)})"


def _vote(w: SourceWriter, i: Instruction) -> None:
    kind = i.opcode[2]
    negated = i.operands[1].startswith("!")
    chosen = w.read(i.operands[1].lstrip("!"), "pred")
    chosen = f"~{chosen}" if negated else chosen
    text = f"vote({kind!r}, S.num_threads, idx, {chosen}, {_mask(w, i)})"
    w.write(i.operands[0], text, "b32" if kind == "ballot" else "pred")


def _shuffle(w: SourceWriter, i: Instruction) -> None:
    value, where, limits = (w.read(o, "b32") for o in i.operands[1:4])
    target, _, predicate = i.operands[0].partition("|")
    found, fine = w.fresh(), w.fresh()
    w.line(
        f"{found}, {fine} = shuffle({i.opcode[2]!r}, S.num_threads, idx, {value}, {where},"
        f" {limits}, {_mask(w, i)})"
    )
    w.write(target, found, "b32")
    if predicate:
        w.write(predicate, fine, "pred")


def _reduce(w: SourceWriter, i: Instruction) -> None:
    kind = i.opcode[-1]
    text = (
        f"reduce({i.opcode[2]!r}, S.num_threads, idx, {w.read(i.operands[1], kind)}, {_mask(w, i)})"
    )
    w.write(i.operands[0], text, kind)


def _multiply(w: SourceWriter, i: Instruction) -> None:
    if i.opcode[3] not in ("m16n8k8", "m16n8k16") or i.opcode[4:] != (
        "row", "col", "f32", "f16", "f16", "f32",
    ):  # fmt: skip
        raise PtxError(f"not known: {i.text}")
    to, a, b, c = (split_operands(o[1:-1]) for o in i.operands)
    lists = [
        f"[{', '.join(w.read(o, kind) for o in operands)}]"
        for operands, kind in ((a, "b32"), (b, "b32"), (c, "f32"))
    ]
    found = [w.fresh() for _ in to]
    w.line(f"{', '.join(found)} = multiply(idx, {', '.join(lists)})")
    for register, name in zip(to, found, strict=True):
        w.write(register, name, "f32")


def _barrier(w: SourceWriter, i: Instruction) -> None:
    """Only that threads are there together, which the machine looks after."""


def _active(w: SourceWriter, i: Instruction) -> None:
    text = "lanes_of_warps(S.num_threads, idx)[idx // 32]"
    w.write(i.operands[0], text, "b32")


def handler_of(instruction: Instruction) -> Handler | None:
    """What writes an instruction of warps; None of others."""
    table: dict[str, Handler] = {
        "vote": _vote, "shfl": _shuffle, "redux": _reduce, "mma": _multiply,
        "bar": _barrier, "barrier": _barrier, "activemask": _active,
    }  # fmt: skip
    name = instruction.opcode[0]
    if name in ("vote", "shfl", "redux", "mma") and instruction.opcode[1] != "sync":
        return None
    return table.get(name)
