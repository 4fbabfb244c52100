# SPDX-License-Identifier: Apache-2.0
"""The nodes from a weight's symbols back to the weight, one compression stage undone by each."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from passes import operators
from passes.chain_builder import Attributes, ChainBuilder
from passes.schemes import (
    CodebookParameters,
    IntegerParameters,
    LosslessParameters,
    Parameters,
    UniformParameters,
)
from passes.select_weights import Weight, bounded_view, coder_view
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest

_BLOCKS_SINCE = 21  # DequantizeLinear: int16 and blocks
_MOVED_ACROSS = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Flatten", "MaxPool", "Identity"}
)
_HALF_SCALE_SINCE = 19  # DequantizeLinear: the output has the type of the scale


class DecodeChain:
    """The chain of one weight: first its symbols are asked for, then the nodes behind them are
    built."""

    def __init__(self, weight: Weight, parameters: Parameters, coder: Coder, opset: int) -> None:
        self.weight, self.parameters, self.coder, self.opset = weight, parameters, coder, opset
        self.order, self.view = coder_view(weight)
        grouped = isinstance(parameters, UniformParameters) and parameters.block_size > 0
        if grouped and self.order is not None:  # groups run along the weight's own last axis
            self.order = None
            grid = (prod(weight.shape[:-2]), weight.shape[-2], weight.shape[-1])
            self.view = bounded_view(grid)

    @property
    def scheme(self) -> str:
        """The scheme's name for reports."""
        if isinstance(self.parameters, UniformParameters):
            return "uniform"
        return "codebook" if isinstance(self.parameters, CodebookParameters) else "lossless"

    def requests(self) -> list[SymbolRequest]:
        """The symbols that the chain needs: one tensor, or the coded byte planes."""
        parameters = self.parameters
        if isinstance(parameters, LosslessParameters):
            first, *lower = zip(parameters.planes, parameters.coded, strict=True)
            planes = [(first[0] ^ np.uint8(128)).view(np.int8)]
            planes += [plane.view(np.int8) for plane, coded in lower if coded]
            return [self._request(plane) for plane in planes]
        return [self._request(parameters.symbols)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        """Builds the nodes behind the ``packed`` requests; returns the weight, not yet named."""
        parameters = self.parameters
        if isinstance(parameters, UniformParameters):
            return self._uniform(builder, parameters, packed[0].value)
        if isinstance(parameters, CodebookParameters):
            return self._codebook(builder, parameters, packed[0].value)
        if isinstance(parameters, IntegerParameters):
            return self._integer(builder, parameters, packed[0].value)
        return self._lossless(builder, parameters, packed)

    def _request(self, symbols: np.ndarray) -> SymbolRequest:
        ordered = symbols if self.order is None else symbols.transpose(self.order)
        shape: tuple[int, ...] = ordered.shape
        if self._folds():
            shape = (-1, self.parameters.block_size)  # type: ignore[union-attr]
            shape = (ordered.size // shape[1], shape[1])
        return SymbolRequest(self.weight.name, ordered, self.view, shape, self.coder)

    def _folds(self) -> bool:
        """Whether groups become rows, for a DequantizeLinear that knows no blocks yet."""
        blocks = isinstance(self.parameters, UniformParameters) and self.parameters.block_size > 0
        return blocks and (self.opset < _BLOCKS_SINCE or self._is_moved())

    def _is_moved(self) -> bool:
        """Whether an operator behind the weight, or behind its symbols, is one that ONNX Runtime
        moves DequantizeLinear across. It does so by quantising again, to uint8 where no zero point
        stands, and from opset 21 on to a node that it refuses itself: such weights are multiplied
        by their scale instead."""
        users = {user.op_type for user, _ in self.weight.value.uses()}
        return self.order is not None or not users.isdisjoint(_MOVED_ACROSS)

    def _uniform(
        self, builder: ChainBuilder, fitted: UniformParameters, value: ir.Value
    ) -> ir.Value:
        scale, zero, axis = fitted.scale, fitted.zero_point, fitted.axis
        if self._folds():
            scale, axis = scale.reshape(-1), 0
            zero = None if zero is None else zero.reshape(-1)
        elif axis is not None and self.order is not None:
            axis = self.order.index(axis)
        wide = fitted.symbols.dtype == np.int16
        plain = self._folds() or self._is_moved() or (wide and self.opset < _BLOCKS_SINCE)
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
        value = self._transposed_back(builder, value)
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

    def _codebook(
        self, builder: ChainBuilder, fitted: CodebookParameters, value: ir.Value
    ) -> ir.Value:
        value = builder.node("Cast", [value], {"to": int(ir.DataType.INT32)})
        if fitted.offset:
            offset = builder.initializer(np.array(fitted.offset, np.int32))
            value = builder.node("Add", [value, offset])
        value = builder.node("Gather", [builder.initializer(fitted.codebook), value])
        return self._transposed_back(builder, value)

    def _integer(
        self, builder: ChainBuilder, fitted: IntegerParameters, value: ir.Value
    ) -> ir.Value:
        if fitted.offset:
            offset = builder.initializer(np.array(fitted.offset, np.int32))
            value = builder.node("Cast", [value], {"to": int(ir.DataType.INT32)})
            value = builder.node("Add", [value, offset])
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        elif (
            value.producer() is None
        ):  # stored raw, perhaps shared: it cannot take this weight's name
            value = builder.node("Identity", [value])
        return self._transposed_back(builder, value)

    def _lossless(
        self, builder: ChainBuilder, fitted: LosslessParameters, packed: Sequence[PackedSymbols]
    ) -> ir.Value:
        inputs, lower = [packed[0].value], iter(packed[1:])
        for plane, coded in zip(fitted.planes[1:], fitted.coded[1:], strict=True):
            if coded:  # the symbols are the bytes read as two's complement; Cast reads them back
                symbols = next(lower).value
                inputs.append(builder.node("Cast", [symbols], {"to": int(ir.DataType.UINT8)}))
            else:
                ordered = plane if self.order is None else plane.transpose(self.order)
                inputs.append(builder.initializer(np.ascontiguousarray(ordered)))
        attributes: Attributes = {"to": int(self.weight.dtype)}
        single = self.weight.dtype == ir.DataType.FLOAT
        op_type = operators.JOIN_FLOAT if single else operators.JOIN_HALF
        value = builder.node(op_type, inputs, attributes, operators.DOMAIN)
        return self._transposed_back(builder, value)

    def _transposed_back(self, builder: ChainBuilder, value: ir.Value) -> ir.Value:
        if self.order is None:
            return value
        inverse = [int(axis) for axis in np.argsort(self.order)]
        return builder.node("Transpose", [value], {"perm": inverse})
