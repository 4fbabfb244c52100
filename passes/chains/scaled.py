# SPDX-License-Identifier: Apache-2.0
"""A scaled weight: what stands for the inner one, times the scale, plus the offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

import passes.chains
from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.chains.unfold_blocks import unfolded
from passes.schemes import ScaledParameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


class ScaledChain(Chain[ScaledParameters]):
    """inner chain -> Mul -> [Add]."""

    def __init__(
        self, weight: Weight, parameters: ScaledParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        inner = replace(weight, dtype=ir.DataType.FLOAT)
        if parameters.partition.block_size:
            shape = parameters.inner.shape
            inner = replace(
                inner, shape=shape, channel_axis=0, permutation=None, is_convolution=False
            )
        self.inner = passes.chains.chain_of(inner, parameters.inner, coder, opset)

    def requests(self) -> list[SymbolRequest]:
        return self.inner.requests()

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted, part = self.parameters, self.parameters.partition
        value = self.inner.build(builder, packed)
        value = builder.node("Mul", [value, self._spread(builder, fitted.scale)])
        if fitted.offset is not None:
            value = builder.node("Add", [value, self._spread(builder, fitted.offset)])
        if part.block_size:
            value = unfolded(builder, value, part)
        if self.weight.dtype != ir.DataType.FLOAT:
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        return value

    def _spread(self, builder: ChainBuilder, values: np.ndarray) -> ir.Value:
        part = self.parameters.partition
        if part.block_size:
            return builder.initializer(values.reshape(-1, 1))
        return builder.initializer(part.spread(values))
