# SPDX-License-Identifier: Apache-2.0
"""What low rank and Tucker have in common: a product of factors, each with a chain of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.chains.inner import (
    InnerChains,
    from_float,
    inner_chain,
    to_float,
    zero_request,
    zeros,
)
from passes.schemes import Parameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest

P = TypeVar("P", bound=Parameters)


class FactorsChain(Chain[P]):
    """factors, the parameters' children -> ``multiplied`` -> weight; zeros where there are none."""

    def __init__(self, weight: Weight, parameters: P, coder: Coder, opset: int) -> None:
        super().__init__(weight, parameters, coder, opset)
        # As if always reshaped: ONNX Runtime would quantise a MatMul of two DequantizeLinear.
        self.inner = InnerChains(
            [inner_chain(weight, part, coder, opset, "Reshape") for part in parameters.children()]
        )

    def requests(self) -> list[SymbolRequest]:
        wanted = [request for part in self.inner.wanted for request in part]
        return wanted or [zero_request(self.weight)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        if not self.inner.wanted:
            return zeros(builder, self.weight, packed[0])
        factors = self.inner.build(builder, packed)
        product = self.multiplied(builder, [to_float(builder, f, self.weight) for f in factors])
        return from_float(builder, product, self.weight)

    @abstractmethod
    def multiplied(self, builder: ChainBuilder, factors: Sequence[ir.Value]) -> ir.Value:
        """The product of the factors, float32, in the weight's shape."""
