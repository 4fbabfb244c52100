# SPDX-License-Identifier: Apache-2.0
"""Codebook: a Gather."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.schemes import CodebookParameters
from passes.symbol_packing import PackedSymbols, SymbolRequest


class CodebookChain(Chain[CodebookParameters]):
    """symbols -> Cast -> Add offset -> Gather from the codebook."""

    def requests(self) -> list[SymbolRequest]:
        return [self.request(self.parameters.symbols)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted = self.parameters
        value = builder.node("Cast", [packed[0].value], {"to": int(ir.DataType.INT32)})
        if fitted.offset:
            offset = builder.initializer(np.array(fitted.offset, np.int32))
            value = builder.node("Add", [value, offset])
        value = builder.node("Gather", [builder.initializer(fitted.codebook), value])
        return self.transposed_back(builder, value)
