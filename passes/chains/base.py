# SPDX-License-Identifier: Apache-2.0
"""The nodes from a weight's symbols back to the weight: what all of them have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.schemes import Parameters
from passes.select_weights import Weight, coder_view
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest

P = TypeVar("P", bound=Parameters)

# ONNX Runtime moves DequantizeLinear across these.
_MOVED_ACROSS = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Flatten", "MaxPool", "Identity"}
)
# It moves a Transpose of one of their inputs behind these, and transposes the other inputs for it.
_BROADCAST = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "PRelu", "Where"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Concat"),
    }
)


class Chain(ABC, Generic[P]):
    """The chain of one weight: first its symbols are asked for, then the nodes behind them are
    built, one compression stage undone by each.

    Attributes:
        order: The order of the weight's axes in which its symbols are coded; None for its own.
        view: The coder's three dimensions.
    """

    def __init__(self, weight: Weight, parameters: P, coder: Coder, opset: int) -> None:
        self.weight, self.parameters, self.coder, self.opset = weight, parameters, coder, opset
        self.order, self.view = self.coder_view(weight)

    def coder_view(self, weight: Weight) -> tuple[tuple[int, ...] | None, tuple[int, int, int]]:
        """How the coder sees the symbols: ``order`` and ``view``."""
        return coder_view(weight)

    @abstractmethod
    def requests(self) -> list[SymbolRequest]:
        """The symbols that the chain needs."""

    @abstractmethod
    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        """Builds the nodes behind the ``packed`` requests; returns the weight, not yet named."""

    def request(self, symbols: np.ndarray) -> SymbolRequest:
        """A request for symbols of the weight's shape."""
        ordered = symbols if self.order is None else symbols.transpose(self.order)
        return SymbolRequest(self.weight.name, ordered, self.view, ordered.shape, self.coder)

    def is_moved(self) -> bool:
        """Whether an operator behind the weight, or behind its symbols, is one that ONNX Runtime
        moves DequantizeLinear across, or puts there. It does so by quantising again, to uint8 where
        no zero point stands, and from opset 21 on to a node that it refuses itself: such weights
        are multiplied by their scale instead."""
        users = [user for user, _ in self.weight.value.uses()]
        if self.order is not None or any(user.op_type in _MOVED_ACROSS for user in users):
            return True
        graphs = [user.graph for user in users if user.op_type in _BROADCAST]
        return any(node.op_type == "Transpose" for graph in graphs for node in (graph or ()))

    def transposed_back(self, builder: ChainBuilder, value: ir.Value) -> ir.Value:
        """The weight's own order of axes."""
        if self.order is None:
            return value
        inverse = [int(axis) for axis in np.argsort(self.order)]
        return builder.node("Transpose", [value], {"perm": inverse})
