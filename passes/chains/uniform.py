# SPDX-License-Identifier: Apache-2.0
"""Uniform quantisation: a DequantizeLinear, or the same arithmetic where that must not stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from passes.chain_builder import Attributes, ChainBuilder
from passes.chains.base import Chain
from passes.schemes import UniformParameters
from passes.select_weights import Weight, bounded_view
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest

_BLOCKS_SINCE = 21  # DequantizeLinear: int16 and blocks
_HALF_SCALE_SINCE = 19  # DequantizeLinear: the output has the type of the scale


class UniformChain(Chain[UniformParameters]):
    """symbols -> DequantizeLinear, or Cast, Sub and Mul."""

    def __init__(
        self, weight: Weight, parameters: UniformParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        if parameters.block_size and self.order is not None:
            # Groups run along the weight's own last axis.
            self.order = None
            grid = (prod(weight.shape[:-2]), weight.shape[-2], weight.shape[-1])
            self.view = bounded_view(grid)

    def requests(self) -> list[SymbolRequest]:
        request = self.request(self.parameters.symbols)
        if not self._folds():
            return [request]
        block = self.parameters.block_size
        return [replace(request, shape=(request.symbols.size // block, block))]

    def _folds(self) -> bool:
        """Whether groups become rows, for a DequantizeLinear that knows no blocks yet."""
        blocks = self.parameters.block_size > 0
        return blocks and (self.opset < _BLOCKS_SINCE or self.is_moved())

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted, value = self.parameters, packed[0].value
        scale, zero, axis = fitted.scale, fitted.zero_point, fitted.axis
        if self._folds():
            scale, axis = scale.reshape(-1), 0
            zero = None if zero is None else zero.reshape(-1)
        elif axis is not None and self.order is not None:
            axis = self.order.index(axis)
        wide = fitted.symbols.dtype == np.int16
        plain = self._folds() or self.is_moved() or (wide and self.opset < _BLOCKS_SINCE)
        half = self.weight.dtype == ir.DataType.FLOAT16 and self.opset >= (
            _BLOCKS_SINCE if wide else _HALF_SCALE_SINCE
        )
        half = half and not plain
        if plain:
            value = self._multiplied(builder, value, scale, zero, axis)
        else:
            inputs = [value, builder.initializer(scale.astype(np.float16) if half else scale)]
            if zero is not None:
                inputs.append(builder.initializer(zero))
            attributes: Attributes = {}
            if axis is not None and axis != 1 and scale.ndim:
                attributes["axis"] = axis
            if fitted.block_size and not self._folds():
                attributes["block_size"] = fitted.block_size
            value = builder.node("DequantizeLinear", inputs, attributes)
        if self._folds() and len(self.weight.shape) > 0:
            shape_value = builder.initializer(np.array(self.weight.shape, np.int64))
            value = builder.node("Reshape", [value, shape_value])
        value = self.transposed_back(builder, value)
        if self.weight.dtype != ir.DataType.FLOAT and not half:
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        return value

    def _multiplied(
        self,
        builder: ChainBuilder,
        value: ir.Value,
        scale: np.ndarray,
        zero: np.ndarray | None,
        axis: int | None,
    ) -> ir.Value:
        """(symbol - zero point) * scale in float32, where DequantizeLinear does not know the
        symbols yet or must not stand; the arithmetic is the same."""
        rank = 2 if self._folds() else len(self.weight.shape)
        shape = [-1 if i == axis else 1 for i in range(rank)] if scale.ndim else []
        value = builder.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        if zero is not None:
            offsets = builder.initializer(zero.astype(np.float32).reshape(shape))
            value = builder.node("Sub", [value, offsets])
        return builder.node("Mul", [value, builder.initializer(scale.reshape(shape))])
