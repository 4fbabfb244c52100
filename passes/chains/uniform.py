# SPDX-License-Identifier: Apache-2.0
"""Uniform quantisation: a DequantizeLinear, or the same arithmetic where that must not stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from passes.chain_builder import Attributes, ChainBuilder
from passes.chains.base import Chain
from passes.chains.inner import inner_chain
from passes.chains.unfold_blocks import unfolded
from passes.schemes import UniformParameters
from passes.schemes.scale_table import scale_table
from passes.select_weights import Weight, bounded_view
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest

_BLOCKS_SINCE = 21  # DequantizeLinear: int16 and blocks
_HALF_SCALE_SINCE = 19  # DequantizeLinear: the output has the type of the scale


class UniformChain(Chain[UniformParameters]):
    """symbols -> DequantizeLinear, or Cast, Sub and Mul -> [Add offset].

    Scales that take few values are looked up in a table.
    """

    def __init__(
        self, weight: Weight, parameters: UniformParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        if parameters.block_size and self.order is not None:
            # Groups run along the weight's own last axis, and buckets along all.
            self.order = None
            grid = (prod(weight.shape[:-2]), weight.shape[-2], weight.shape[-1])
            self.view = bounded_view(grid)
        if parameters.partition.padding:
            self.view = bounded_view((1, parameters.scale.size, parameters.block_size))
        wide = parameters.symbols.dtype == np.int16
        self._plain = self._folds() or self.is_moved() or (wide and opset < _BLOCKS_SINCE)
        self._half = (
            weight.dtype == ir.DataType.FLOAT16
            and opset >= (_BLOCKS_SINCE if wide else _HALF_SCALE_SINCE)
            and not self._plain
            and parameters.offset is None
        )
        self._axis = parameters.axis
        if self._folds():
            self._axis = 0
        elif self._axis is not None and self.order is not None:
            self._axis = self.order.index(self._axis)
        self._scale = self._shaped(parameters.scale)
        if self._half:
            self._scale = self._scale.astype(np.float16)
        table = scale_table(self._scale)
        self._table: Chain[Any] | None = None
        if table is not None:
            self._table = inner_chain(weight, table, "auto", opset, "Gather")

    def requests(self) -> list[SymbolRequest]:
        request = self.request(self.parameters.symbols)
        if self._folds():
            blocks = self.parameters.partition.fold(request.symbols)[0]
            request = replace(request, symbols=blocks, shape=blocks.shape)
        return [request, *([] if self._table is None else self._table.requests())]

    def _folds(self) -> bool:
        """Whether blocks become rows, for a DequantizeLinear that knows none yet, and as buckets
        and offsets need it."""
        fitted = self.parameters
        unknown = self.opset < _BLOCKS_SINCE or fitted.axis is None or fitted.offset is not None
        return fitted.block_size > 0 and (unknown or self.is_moved())

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted, value = self.parameters, packed[0].value
        if self._table is None:
            scale = builder.initializer(self._scale)
        else:
            scale = self._table.build(builder, packed[1:])
        zero = None if fitted.zero_point is None else self._shaped(fitted.zero_point)
        if self._plain:
            value = builder.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
            if zero is not None:
                zeros = builder.initializer(zero.astype(np.float32))
                value = builder.node("Sub", [value, zeros])
            value = builder.node("Mul", [value, scale])
        else:
            inputs = [value, scale] if zero is None else [value, scale, builder.initializer(zero)]
            attributes: Attributes = {}
            if self._axis is not None and self._axis != 1 and fitted.scale.ndim:
                attributes["axis"] = self._axis
            if fitted.block_size and not self._folds():
                attributes["block_size"] = fitted.block_size
            value = builder.node("DequantizeLinear", inputs, attributes)
        if fitted.offset is not None:
            offset = builder.initializer(self._beside(fitted.offset))
            value = builder.node("Add", [value, offset])
        if self._folds():
            value = unfolded(builder, value, fitted.partition)
        value = self.transposed_back(builder, value)
        if self.weight.dtype != ir.DataType.FLOAT and not self._half:
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        return value

    def _shaped(self, scales: np.ndarray) -> np.ndarray:
        """Scales or zero points as the operators behind the symbols take them: broadcast against
        the symbols where the arithmetic is spelled out, since DequantizeLinear does not know the
        symbols yet or must not stand there."""
        return self._beside(scales) if self._plain else scales

    def _beside(self, scales: np.ndarray) -> np.ndarray:
        """``scales`` with the dimensions in which they are broadcast against the symbols."""
        if self._folds():
            return scales.reshape(-1, 1)
        rank = len(self.weight.shape)
        return (
            scales.reshape([-1 if i == self._axis else 1 for i in range(rank)])
            if scales.ndim
            else scales
        )
