# SPDX-License-Identifier: Apache-2.0
"""Chains inside of a chain: of factors, coefficients, and the parts of a sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.schemes import Parameters
from passes.select_weights import Weight, folded_view
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


def inner_chain(
    weight: Weight, parameters: Parameters, coder: Coder, opset: int, user: str
) -> Chain[Any]:
    """The chain of an inner tensor of ``weight`` that an operator ``user`` of the outer chain
    reads.

    Its bytes belong to ``weight``. Of more than two dimensions it is a convolution, output channels
    first.
    """
    from passes.chains import chain_of  # which imports the chains that contain others

    value = ir.Value(name=weight.name)
    ir.Node("", user, [value])
    part = replace(
        weight,
        value=value,
        shape=parameters.shape,
        role="weight",
        channel_axis=0,
        permutation=None,
        is_convolution=len(parameters.shape) > 2,
    )
    return chain_of(part, parameters, coder, opset)


class InnerChains:
    """Several inner chains, whose requests and symbols stand one after the other."""

    def __init__(self, chains: Sequence[Chain[Any]]) -> None:
        self.chains = chains
        self.wanted = [chain.requests() for chain in chains]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> list[ir.Value]:
        """The decoded inner tensors."""
        values, first = [], 0
        for chain, wanted in zip(self.chains, self.wanted, strict=True):
            values.append(chain.build(builder, packed[first : first + len(wanted)]))
            first += len(wanted)
        return values


def reshaped(builder: ChainBuilder, value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """``value`` with other dimensions."""
    return builder.node("Reshape", [value, builder.initializer(np.array(shape, np.int64))])


def to_float(builder: ChainBuilder, value: ir.Value, weight: Weight) -> ir.Value:
    """A value of the weight's type as float32."""
    if weight.dtype == ir.DataType.FLOAT:
        return value
    return builder.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})


def from_float(builder: ChainBuilder, value: ir.Value, weight: Weight) -> ir.Value:
    """A float32 value in the weight's type."""
    if weight.dtype == ir.DataType.FLOAT:
        return value
    return builder.node("Cast", [value], {"to": int(weight.dtype)})


def zero_request(weight: Weight) -> SymbolRequest:
    """The only symbol of a weight of zeros, so that its chain begins like any other."""
    return SymbolRequest(weight.name, np.zeros(1, np.int8), folded_view(1), (1,), "auto")


def zeros(builder: ChainBuilder, weight: Weight, packed: PackedSymbols) -> ir.Value:
    """A weight of zeros from what became of ``zero_request``."""
    value = builder.node("Cast", [packed.value], {"to": int(ir.DataType.FLOAT)})
    shape = builder.initializer(np.array(weight.shape, np.int64))
    return from_float(builder, builder.node("Expand", [value, shape]), weight)
