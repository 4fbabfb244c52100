# SPDX-License-Identifier: Apache-2.0
"""Tucker-2: two MatMuls around the core."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.chains.inner import (
    InnerChains,
    from_float,
    inner_chain,
    reshaped,
    to_float,
    zero_request,
    zeros,
)
from passes.schemes import TuckerParameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


class TuckerChain(Chain[TuckerParameters]):
    """last x core -> [n, r_in, taps] -> transposed first x that -> [n, m, taps] -> weight."""

    def __init__(
        self, weight: Weight, parameters: TuckerParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        self.inner = InnerChains(
            [inner_chain(weight, part, coder, opset, "Reshape") for part in parameters.children()]
        )

    def requests(self) -> list[SymbolRequest]:
        wanted = [request for part in self.inner.wanted for request in part]
        return wanted or [zero_request(self.weight)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        dims, (r_out, r_in) = self.parameters.shape, self.parameters.ranks
        if not r_out:
            return zeros(builder, self.weight, packed[0])
        last, core, first = (
            to_float(builder, value, self.weight) for value in self.inner.build(builder, packed)
        )
        taps = prod(dims[2:])
        last = reshaped(builder, last, (dims[0], r_out))
        core = reshaped(builder, core, (r_out, r_in * taps))
        first = reshaped(builder, first, (r_in, dims[1]))
        wide = builder.node("MatMul", [last, core])
        wide = reshaped(builder, wide, (dims[0], r_in, taps))
        first = builder.node("Transpose", [first], {"perm": (1, 0)})
        value = builder.node("MatMul", [first, wide])
        return from_float(builder, reshaped(builder, value, dims), self.weight)
