# SPDX-License-Identifier: Apache-2.0
"""Sums: an Add for each further part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.chains.inner import InnerChains, from_float, to_float
from passes.schemes import SumParameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


class SumChain(Chain[SumParameters]):
    """parts -> Add in float32, in their order -> weight."""

    def __init__(self, weight: Weight, parameters: SumParameters, coder: Coder, opset: int) -> None:
        super().__init__(weight, parameters, coder, opset)
        from passes.chains import chain_of  # which imports this module

        chains = []
        for part in parameters.parts:
            value = ir.Value(name=weight.name)
            ir.Node("", "Add", [value])
            chains.append(chain_of(replace(weight, value=value), part, coder, opset))
        self.inner = InnerChains(chains)

    def requests(self) -> list[SymbolRequest]:
        return [request for part in self.inner.wanted for request in part]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        values = self.inner.build(builder, packed)
        if len(values) == 1:
            return values[0]
        total = to_float(builder, values[0], self.weight)
        for value in values[1:]:
            total = builder.node("Add", [total, to_float(builder, value, self.weight)])
        return from_float(builder, total, self.weight)
