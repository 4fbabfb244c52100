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
from passes.chains.unfold_blocks import unfolded
from passes.schemes import UniformParameters
from passes.select_weights import Weight, bounded_view
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest

_BLOCKS_SINCE = 21  # DequantizeLinear: int16 and blocks
_HALF_SCALE_SINCE = 19  # DequantizeLinear: the output has the type of the scale


class UniformChain(Chain[UniformParameters]):
    """symbols -> DequantizeLinear, or Cast, Sub and Mul -> [Add offset]."""

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

    def requests(self) -> list[SymbolRequest]:
        request = self.request(self.parameters.symbols)
        if not self._folds():
            return [request]
        blocks = self.parameters.partition.fold(request.symbols)[0]
        return [replace(request, symbols=blocks, shape=blocks.shape)]

    def _folds(self) -> bool:
        """Whether blocks become rows, for a DequantizeLinear that knows none yet, and as buckets
        and offsets need it."""
        fitted = self.parameters
        unknown = self.opset < _BLOCKS_SINCE or fitted.axis is None or fitted.offset is not None
        return fitted.block_size > 0 and (unknown or self.is_moved())

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted, value = self.parameters, packed[0].value
        scale, zero, axis = fitted.scale, fitted.zero_point, fitted.axis
        offset = fitted.offset
        if self._folds():
            scale, axis = scale.reshape(-1), 0
            zero = None if zero is None else zero.reshape(-1)
            offset = None if offset is None else offset.reshape(-1)
        elif axis is not None and self.order is not None:
            axis = self.order.index(axis)
        wide = fitted.symbols.dtype == np.int16
        plain = self._folds() or self.is_moved() or (wide and self.opset < _BLOCKS_SINCE)
        half = self.weight.dtype == ir.DataType.FLOAT16 and self.opset >= (
            _BLOCKS_SINCE if wide else _HALF_SCALE_SINCE
        )
        half = half and not plain and offset is None
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
        if offset is not None:
            shape = self._beside(offset, axis)
            value = builder.node("Add", [value, builder.initializer(offset.reshape(shape))])
        if self._folds():
            value = unfolded(builder, value, fitted.partition)
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
        shape = self._beside(scale, axis)
        value = builder.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        if zero is not None:
            offsets = builder.initializer(zero.astype(np.float32).reshape(shape))
            value = builder.node("Sub", [value, offsets])
        return builder.node("Mul", [value, builder.initializer(scale.reshape(shape))])

    def _beside(self, scale: np.ndarray, axis: int | None) -> list[int]:
        """The dimensions in which ``scale`` is broadcast against the symbols."""
        rank = 2 if self._folds() else len(self.weight.shape)
        return [-1 if i == axis else 1 for i in range(rank)] if scale.ndim else []
