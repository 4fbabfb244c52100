# SPDX-License-Identifier: Apache-2.0
"""A kernel with the device functions that it calls put in their places.

Parameters of a call are variables of the caller; the body of what is called reads and writes them
under the caller's names. There is no recursion in what is run here, so there is no stack of calls.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator

from tests.ptx.errors import PtxError
from tests.ptx.parser import Function, Instruction, Module, Variable, split_operands

_NAME = re.compile(r"[$%A-Za-z_][$%\w]*(?:\.[xyz])?")


@dataclasses.dataclass
class Kernel:
    """A kernel without calls. `call_params` are the names of parameters of calls."""

    name: str
    params: list[Variable]
    registers: dict[str, int | None]
    variables: dict[str, Variable]
    call_params: set[str]
    body: list[Instruction | str]


def _renamed(instruction: Instruction, names: dict[str, str]) -> Instruction:
    def replace(text: str) -> str:
        return _NAME.sub(lambda found: names.get(found[0], found[0]), text)

    return dataclasses.replace(
        instruction,
        operands=tuple(replace(operand) for operand in instruction.operands),
        guard=names.get(instruction.guard, instruction.guard),
    )


class _Inliner:
    def __init__(self, module: Module, kernel: Function) -> None:
        self._module = module
        self._calls = itertools.count()
        self.made = Kernel(
            kernel.name, kernel.params, dict(kernel.registers), dict(module.variables), set(), []
        )
        self._add_variables(kernel, {})
        self.made.body = list(self._expand(kernel, {}, ()))

    def _add_variables(self, function: Function, names: dict[str, str]) -> None:
        for name, variable in function.variables.items():
            own = names.get(name, name)
            self.made.variables[own] = dataclasses.replace(variable, name=own)
            if variable.space == "param":
                self.made.call_params.add(own)

    def _expand(
        self, function: Function, names: dict[str, str], callers: tuple[str, ...]
    ) -> Iterator[Instruction | str]:
        for item in function.body:
            if isinstance(item, str):
                yield names.get(item, item)
            elif item.opcode[0] == "call":
                yield from self._call(_renamed(item, names), callers)
            elif item.opcode[0] == "ret" and callers:
                yield dataclasses.replace(
                    item, opcode=("bra",), operands=(names["ret"],), origin=function.name
                )
            elif callers:
                yield dataclasses.replace(_renamed(item, names), origin=function.name)
            else:
                yield item

    def _call(self, call: Instruction, callers: tuple[str, ...]) -> Iterator[Instruction | str]:
        lists = [split_operands(o[1:-1]) if o.startswith("(") else o for o in call.operands]
        at = next((i for i, o in enumerate(lists) if isinstance(o, str)), -1)
        name = lists[at]
        if at < 0 or not isinstance(name, str) or name not in self._module.functions or call.guard:
            raise PtxError(f"{self.made.name}: call not known: {call.text}")
        if name in callers:
            raise PtxError(f"{self.made.name}: {name} calls itself")
        function = self._module.functions[name]
        prefix = f"c{next(self._calls)}_"
        names = {"ret": f"{prefix}ret"}
        for register, width in function.registers.items():
            names[register] = f"%{prefix}{register[1:]}"
            self.made.registers[names[register]] = width
        names |= {item: prefix + item for item in function.body if isinstance(item, str)}
        names |= {own: prefix + own for own in function.variables}
        given = [n for o in lists[at + 1 :] for n in o]
        wanted = [n for o in lists[:at] for n in o]
        for params, arguments in ((function.params, given), (function.results, wanted)):
            names |= {p.name: a for p, a in zip(params, arguments, strict=True)}
        self._add_variables(function, names)
        yield from self._expand(function, names, (*callers, name))
        yield names["ret"]


def inline_calls(module: Module, name: str) -> Kernel:
    """The kernel of this name, without calls."""
    return _Inliner(module, module.functions[name]).made
