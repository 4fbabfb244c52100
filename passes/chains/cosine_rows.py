# SPDX-License-Identifier: Apache-2.0
"""Rows that are cosines, made by the graph from two numbers each."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import numpy as np
import onnx_ir as ir

from passes.chain_builder import Attributes, ChainBuilder
from passes.chains.base import Chain
from passes.chains.inner import InnerChains, inner_chain, reshaped
from passes.schemes import CosineRowsParameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


class CosineRowsChain(Chain[CosineRowsParameters]):
    """amplitudes and frequencies -> Range, Mul, Add, Sin -> Round -> Cast -> Mul -> Cast."""

    def __init__(
        self, weight: Weight, parameters: CosineRowsParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        parts = parameters.children()
        self.inner = InnerChains(
            [inner_chain(weight, part, coder, opset, "Reshape") for part in parts]
        )

    def requests(self) -> list[SymbolRequest]:
        return [request for part in self.inner.wanted for request in part]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted, shift = self.parameters, self.parameters.shift()
        double: Attributes = {"to": int(ir.DataType.DOUBLE)}
        columns = [
            reshaped(builder, builder.node("Cast", [value], double), (-1, 1))
            for value in self.inner.build(builder, packed)
        ]

        def number(value: float) -> ir.Value:
            return builder.initializer(np.array(value, np.float64))

        bounds = (1.0, 2.0 * fitted.columns, 2.0)
        unit = builder.node("Range", [number(bound) for bound in bounds])
        unit = builder.node("Mul", [unit, number(fitted.angle_unit)])
        angle = builder.node("Mul", [columns[1], unit])
        angle = builder.node("Add", [angle, number(pi / 2)])
        value = builder.node("Sin", [angle])
        value = builder.node("Round", [builder.node("Mul", [value, number(2.0**shift)])])
        # A cosine of 0 is a little above or below in each library: integers lose the sign.
        value = builder.node("Cast", [value], {"to": int(ir.DataType.INT32)})
        value = builder.node("Cast", [value], double)
        sizes = builder.node("Mul", [columns[0], number(2.0 ** (1 - shift))])
        value = builder.node("Mul", [value, sizes])
        value = builder.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        if self.weight.dtype != ir.DataType.FLOAT:
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        return value
