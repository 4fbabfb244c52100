# SPDX-License-Identifier: Apache-2.0
"""Low rank: a MatMul of the two factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
from passes.schemes import LowRankParameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


class LowRankChain(Chain[LowRankParameters]):
    """factors -> [Transpose, Reshape] -> MatMul -> [Reshape, Transpose] -> weight."""

    def __init__(
        self, weight: Weight, parameters: LowRankParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        # As if always reshaped: ONNX Runtime would quantise a MatMul of two DequantizeLinear.
        self.inner = InnerChains(
            [inner_chain(weight, part, coder, opset, "Reshape") for part in parameters.children()]
        )

    def requests(self) -> list[SymbolRequest]:
        wanted = [request for part in self.inner.wanted for request in part]
        return wanted or [zero_request(self.weight)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        unfolding, rank = self.parameters.unfolding, self.parameters.rank
        if not rank:
            return zeros(builder, self.weight, packed[0])
        rows, columns = unfolding.matrix_shape
        left, right = (
            to_float(builder, value, self.weight) for value in self.inner.build(builder, packed)
        )
        if unfolding.left_is_moved:
            axes = (0, *range(2, len(unfolding.shape)), 1)
            left = builder.node("Transpose", [left], {"perm": axes})
        if unfolding.is_layers:
            left = reshaped(builder, left, (rows, rank))
            right = reshaped(builder, right, (rank, columns))
        value = builder.node("MatMul", [left, right])
        if len(unfolding.shape) > 2:
            value = reshaped(builder, value, unfolding.permuted)
        if unfolding.axes != tuple(range(len(unfolding.shape))):
            inverse = [int(axis) for axis in np.argsort(unfolding.axes)]
            value = builder.node("Transpose", [value], {"perm": inverse})
        return from_float(builder, value, self.weight)
