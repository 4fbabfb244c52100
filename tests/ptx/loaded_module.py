# SPDX-License-Identifier: Apache-2.0
"""Modules in the memory of a device, and kernels ready to be launched."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from tests.ptx.inline_calls import inline_calls
from tests.ptx.memory import DeviceMemory
from tests.ptx.parser import Module, Variable
from tests.ptx.program import make_program
from tests.ptx.translation import Translation


def _lay_out(variables: Sequence[Variable], first: int = 0) -> tuple[dict[str, int], int]:
    """Places of variables one behind the other, and where they end."""
    places, at = {}, first
    for variable in variables:
        at = -(-at // variable.align) * variable.align
        places[variable.name] = at
        at += variable.size
    return places, at


@dataclasses.dataclass
class LoadedKernel:
    """A kernel ready to be launched.

    Attributes:
        params, param_places, param_bytes: its parameters, and where they lie one behind the other.
        static_shared, local_bytes: of a thread block, and of a thread.
        most_threads: of a thread block.
    """

    name: str
    translation: Translation
    params: list[Variable]
    param_places: dict[str, int]
    param_bytes: int
    static_shared: int
    local_bytes: int
    most_threads: int


class LoadedModule:
    """A module in a device's memory; kernels are prepared when they are first launched."""

    def __init__(self, module: Module, memory: DeviceMemory) -> None:
        self.module = module
        self._kernels: dict[str, LoadedKernel] = {}
        self._symbols: dict[str, int] = {}
        for variable in module.variables.values():
            if variable.space in ("global", "const"):
                address = memory.allocate(variable.size)
                values = np.array(variable.values, np.int64).astype(f"u{variable.width}")
                memory.put(address, np.zeros(variable.size, np.uint8))
                if variable.values:
                    memory.put(address, values)
                self._symbols[variable.name] = address

    def kernel(self, name: str) -> LoadedKernel:
        if name not in self._kernels:
            self._kernels[name] = self._load(name)
        return self._kernels[name]

    def _load(self, name: str) -> LoadedKernel:
        kernel = inline_calls(self.module, name)
        operands = " ".join(o for i in kernel.body if not isinstance(i, str) for o in i.operands)
        used = set(re.findall(r"[$%\w]+", operands))
        variables = [v for v in kernel.variables.values() if v.name in used]
        params, param_bytes = _lay_out(kernel.params)
        local, local_bytes = _lay_out([v for v in variables if v.space == "local"])
        shared = [v for v in variables if v.space == "shared"]
        static, static_bytes = _lay_out([v for v in shared if v.size])
        symbols = self._symbols | params | local | static
        for variable in shared:
            if not variable.size:  # dynamic: all of them begin behind the others
                align = variable.align
                static_bytes = -(-static_bytes // align) * align
                symbols[variable.name] = static_bytes
        return LoadedKernel(
            name, Translation(make_program(kernel), symbols), kernel.params, params, param_bytes,
            static_bytes, local_bytes, self.module.functions[name].most_threads,
        )  # fmt: skip
