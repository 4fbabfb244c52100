# SPDX-License-Identifier: Apache-2.0
"""Lossless floats and integers: byte planes joined, an offset added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from passes import operators
from passes.chain_builder import Attributes, ChainBuilder
from passes.chains.base import Chain
from passes.schemes import IntegerParameters, LosslessParameters
from passes.symbol_packing import PackedSymbols, SymbolRequest


class IntegerChain(Chain[IntegerParameters]):
    """symbols -> [Add offset] -> integers."""

    def requests(self) -> list[SymbolRequest]:
        return [self.request(self.parameters.symbols)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted, value = self.parameters, packed[0].value
        if fitted.offset:
            offset = builder.initializer(np.array(fitted.offset, np.int32))
            value = builder.node("Cast", [value], {"to": int(ir.DataType.INT32)})
            value = builder.node("Add", [value, offset])
        if fitted.offset or fitted.symbols.dtype != fitted.dtype:
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        elif (
            value.producer() is None
        ):  # stored raw, perhaps shared: it cannot take this weight's name
            value = builder.node("Identity", [value])
        return self.transposed_back(builder, value)


class LosslessChain(Chain[LosslessParameters]):
    """byte planes -> JoinFloat or JoinHalf -> floats."""

    def requests(self) -> list[SymbolRequest]:
        return [self.request(plane) for plane in plane_symbols(self.parameters)]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        value = join_planes(builder, self.parameters, packed, self.order)
        return self.transposed_back(builder, value)


def plane_symbols(fitted: LosslessParameters) -> list[np.ndarray]:
    """The planes that are coded, int8, of the weight's shape."""
    first, *lower = zip(fitted.planes, fitted.coded, strict=True)
    symbols = [(first[0] ^ np.uint8(128)).view(np.int8)]
    return symbols + [plane.view(np.int8) for plane, coded in lower if coded]


def join_planes(
    builder: ChainBuilder,
    fitted: LosslessParameters,
    packed: Sequence[PackedSymbols],
    order: Sequence[int] | None = None,
) -> ir.Value:
    """The floats of byte planes whose axes are coded in ``order``."""
    inputs, lower = [packed[0].value], iter(packed[1:])
    for plane, coded in zip(fitted.planes[1:], fitted.coded[1:], strict=True):
        if coded:  # the symbols are the bytes read as two's complement; Cast reads them back
            symbols = next(lower).value
            inputs.append(builder.node("Cast", [symbols], {"to": int(ir.DataType.UINT8)}))
        else:
            ordered = plane if order is None else plane.transpose(order)
            inputs.append(builder.initializer(np.ascontiguousarray(ordered)))
    dtype = ir.DataType.from_numpy(fitted.dtype)
    attributes: Attributes = {"to": int(dtype)}
    op_type = operators.JOIN_FLOAT if dtype == ir.DataType.FLOAT else operators.JOIN_HALF
    return builder.node(op_type, inputs, attributes, operators.DOMAIN)
