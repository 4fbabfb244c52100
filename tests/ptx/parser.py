# SPDX-License-Identifier: Apache-2.0
"""Text of PTX (the PTX ISA's chapters 4 to 7) to functions, variables and instructions."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

from tests.ptx.errors import PtxError

WIDTHS = {"8": 1, "16": 2, "32": 4, "64": 8}
_DIRECTIVE = re.compile(r"\.(version|target|address_size)[^\n]*\n")
_FUNCTION = re.compile(r"(?:\.(?:visible|weak|extern)\s+)*\.(entry|func)\b")
_LABEL = re.compile(r"([$%\w]+):")
_VARIABLE = re.compile(
    r"(?:\.(?:visible|weak|extern)\s+)*\.(shared|local|global|const|param)\s+(?:\.align\s+(\d+)\s+)?"
    r"\.(?:[bsuf](8|16|32|64))\s+([$%\w]+)(\[(\d*)\])?\s*(?:=\s*(.*))?$",
    re.S,
)
_MOST_THREADS = re.compile(r"\.maxntid\s+(\d+(?:\s*,\s*\d+)*)")
_GUARD = re.compile(r"@(!?)(%[$\w]+)\s+")


@dataclasses.dataclass(frozen=True)
class Variable:
    """A declared variable: its state space, alignment and size in bytes, and first values."""

    name: str
    space: str
    align: int
    size: int
    width: int = 1
    values: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`@guard opcode operands`; operands are texts, vectors `{a, b}` and addresses `[a+8]` whole.
    `guard` is empty where there is none; `origin` is the device function that it stands in, empty
    for the kernel's own."""

    opcode: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str
    negated: bool
    text: str
    origin: str = ""


@dataclasses.dataclass
class Function:
    """A kernel or a device function. `body` holds instructions and, as texts, labels;
    `most_threads` is what `.maxntid` allows a thread block."""

    name: str
    is_kernel: bool
    params: list[Variable]
    results: list[Variable]
    registers: dict[str, int | None]  # bytes of each, None of a predicate
    variables: dict[str, Variable]
    body: list[Instruction | str]
    most_threads: int = 1024


@dataclasses.dataclass
class Module:
    """A file of PTX."""

    functions: dict[str, Function]
    variables: dict[str, Variable]


def split_operands(text: str) -> tuple[str, ...]:
    """At commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in "{[(":
            depth += 1
        elif char in "}])":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return (*parts, last) if last else tuple(parts)


def parse_variable(text: str) -> Variable:
    found = _VARIABLE.match(text.strip())
    if found is None:
        raise PtxError(f"declaration not known: {text.strip()}")
    space, align, bits, name, is_array, count, values = found.groups()
    width = WIDTHS[bits]
    size = width * int(count or 0) if is_array else width
    numbers = tuple(int(v, 0) for v in (values or "").strip("{} \n").split(",") if v.strip())
    return Variable(name, space, int(align or width), size, width, numbers)


def _rename(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = re.sub(rf"(?<![$%\w]){re.escape(old)}(?![\w$])", lambda _, new=new: new, text)
    return text


class _Body:
    """Reads a function's body; names declared inside of braces become unique."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._scopes: list[dict[str, str]] = [{}]
        self._numbers = itertools.count()

    def read(self, text: str) -> None:
        at = 0
        while True:
            while at < len(text) and text[at].isspace():
                at += 1
            if at == len(text):
                return
            if text[at] == "{":
                self._scopes.append({})
                at += 1
            elif text[at] == "}":
                self._scopes.pop()
                at += 1
            elif label := _LABEL.match(text, at):
                self._function.body.append(label[1])
                at = label.end()
            else:
                end = text.index(";", at)
                self._statement(" ".join(text[at:end].split()))
                at = end + 1

    def _declare(self, name: str) -> str:
        if len(self._scopes) == 1:
            return name
        # Parameters of calls have the same names at every call.
        unique = f"{name}_{next(self._numbers)}s"
        self._scopes[-1][name] = unique
        return unique

    def _statement(self, text: str) -> None:
        if text.startswith(".reg"):
            self._registers(text)
        elif text.startswith((".shared", ".local", ".param", ".global", ".const")):
            variable = parse_variable(text)
            unique = self._declare(variable.name)
            self._function.variables[unique] = dataclasses.replace(variable, name=unique)
        elif text.startswith(".pragma"):
            return
        elif text.startswith("."):
            raise PtxError(f"directive not known: {text}")
        else:
            for scope in reversed(self._scopes):
                text = _rename(text, scope)
            self._function.body.append(parse_instruction(text))

    def _registers(self, text: str) -> None:
        _, kind, names = text.split(None, 2)
        width = None if kind == ".pred" else WIDTHS[kind[2:]]
        for name in (n.strip() for n in names.split(",")):
            if "<" in name:
                stem, count = name.rstrip(">").split("<")
                for number in range(int(count)):
                    self._function.registers[f"{stem}{number}"] = width
            else:
                self._function.registers[self._declare(name)] = width


def parse_instruction(text: str) -> Instruction:
    guard, negated, rest = "", False, text
    if found := _GUARD.match(text):
        negated, guard = found[1] == "!", found[2]
        rest = text[found.end() :]
    opcode, _, operands = rest.partition(" ")
    return Instruction(tuple(opcode.split(".")), split_operands(operands), guard, negated, text)


def _matching(text: str, at: int, opening: str, closing: str) -> int:
    """The place of the bracket that closes the one at `at`."""
    depth = 0
    for place in range(at, len(text)):
        if text[place] == opening:
            depth += 1
        elif text[place] == closing:
            depth -= 1
            if depth == 0:
                return place
    raise PtxError(f"a {opening} is not closed")


def _parse_function(header: str, body: str, is_kernel: bool) -> Function:
    lists = []
    at = 0
    names = ""
    while (start := header.find("(", at)) >= 0:
        names += header[at:start] + " "
        end = _matching(header, start, "(", ")")
        lists.append([parse_variable(p) for p in split_operands(header[start + 1 : end])])
        at = end + 1
    if not lists:
        names = header
    results = lists[0] if len(lists) > 1 else []
    params = lists[-1] if lists else []
    function = Function(names.split()[0], is_kernel, params, results, {}, {}, [])
    if found := _MOST_THREADS.search(header):
        function.most_threads = math.prod(int(n) for n in found[1].split(","))
    _Body(function).read(body)
    return function


def parse(text: str) -> Module:
    """A module of the text of one file."""
    text = re.sub(r"/\*.*?\*/", " ", re.sub(r"//[^\n]*", "", text), flags=re.S)
    module = Module({}, {})
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return module
        if found := _DIRECTIVE.match(text, at):
            at = found.end()
        elif found := _FUNCTION.match(text, at):
            end = re.compile(r"[;{]").search(text, at)
            if end is None:
                raise PtxError("a function has no end")
            header = text[found.end() : end.start()]
            at = end.end()
            if end[0] == "{":
                close = _matching(text, end.start(), "{", "}")
                made = _parse_function(header, text[end.end() : close], found[1] == "entry")
                module.functions[made.name] = made
                at = close + 1
        else:
            end_at = text.index(";", at)
            variable = parse_variable(text[at:end_at])
            module.variables[variable.name] = variable
            at = end_at + 1
