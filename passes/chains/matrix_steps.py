# SPDX-License-Identifier: Apache-2.0
"""Integers times a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from passes.chain_builder import Attributes, ChainBuilder
from passes.chains.base import Chain
from passes.chains.folds import unfolded_axes
from passes.schemes import MatrixParameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


class MatrixChain(Chain[MatrixParameters]):
    """symbols -> Cast to double -> MatMul with the matrix -> Cast -> Transpose and Reshape."""

    def __init__(
        self, weight: Weight, parameters: MatrixParameters, coder: Coder, opset: int
    ) -> None:
        folded = replace(
            weight,
            shape=parameters.folding.folded_shape,
            role="weight",
            channel_axis=None,
            permutation=None,
            is_convolution=True,  # neighbours along the last axis, as taps are
        )
        super().__init__(folded, parameters, coder, opset)

    def requests(self) -> list[SymbolRequest]:
        return [self.request(self.parameters.symbols)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        double: Attributes = {"to": int(ir.DataType.DOUBLE)}
        value = builder.node("Cast", [packed[0].value], double)
        matrix = builder.node("Cast", [builder.initializer(self.parameters.matrix)], double)
        value = builder.node("MatMul", [value, matrix])
        value = builder.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        value = unfolded_axes(builder, value, self.parameters.folding)
        if self.weight.dtype != ir.DataType.FLOAT:
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        return value
