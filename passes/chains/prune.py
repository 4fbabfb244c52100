# SPDX-License-Identifier: Apache-2.0
"""Pruning: the inner scheme's chain; floats that are kept as they are go to their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.chains.lossless import join_planes, plane_symbols
from passes.pack_zero_runs import add_scatter, running_sum
from passes.schemes import Lossless, LosslessParameters, PruneParameters
from passes.select_weights import Weight, folded_view
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest
from passes.zero_runs import Gaps, split_runs

_WIDTHS = range(2, 11)  # bits of a difference of indices; up to 6 it is an int8
_NODE_BYTES = 200  # of the nodes that a chain of survivors has more


class PruneChain(Chain[PruneParameters]):
    """The inner chain: pruned weights are zeros among its symbols.

    Floats (the inner scheme is lossless) come as the vector of survivors where that takes fewer
    bytes: planes -> JoinFloat -> survivors; differences -> CumSum -> indices; both into a
    ScatterElements over zeros. The zeros between are then coded once, not in each plane.
    """

    def __init__(
        self, weight: Weight, parameters: PruneParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        from passes.chains import chain_of  # which knows this chain

        self._inner: Chain[Any] = chain_of(weight, parameters.inner, coder, opset)
        self._survivors: LosslessParameters | None = None
        self._differences = np.zeros(0, np.int8)
        if isinstance(parameters.inner, LosslessParameters):
            self._find_survivors(parameters.inner)

    def _find_survivors(self, inner: LosslessParameters) -> None:
        """Takes the vector of survivors, fillers among them, where that is smaller."""
        values = inner.decode()
        gaps = Gaps.of_places(np.flatnonzero(self.parameters.mask), values.size)
        run_bits = gaps.best_run_bits(8.0 * values.dtype.itemsize, _WIDTHS)
        runs = split_runs(values, gaps, run_bits)
        survivors = Lossless().fit(runs.values)
        if not isinstance(survivors, LosslessParameters):
            return
        cost = gaps.run_cost(run_bits, 0.0) + survivors.bits()
        if cost + 8 * _NODE_BYTES < inner.bits():
            self._survivors = survivors
            self._differences = runs.differences.astype(np.int8 if run_bits <= 6 else np.int16)

    def requests(self) -> list[SymbolRequest]:
        if self._survivors is None:
            return self._inner.requests()
        parts = [self._differences, *plane_symbols(self._survivors)]
        return [self._vector(part) for part in parts]

    def _vector(self, symbols: np.ndarray) -> SymbolRequest:
        coder: Coder = "auto" if self.coder == "zero_run" else self.coder
        view, shape = folded_view(symbols.size), symbols.shape
        return SymbolRequest(self.weight.name, symbols, view, shape, coder)

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted = self._survivors
        if fitted is None:
            return self._inner.build(builder, packed)
        values = join_planes(builder, fitted, packed[1:])
        ends = running_sum(packed[0].value, builder)
        places = builder.node("Add", [ends, builder.initializer(np.array(-1, np.int32))])
        zero, size = np.zeros((), fitted.dtype), self.weight.num_elements
        flat = add_scatter(builder, zero, size, places, values)
        shape = builder.initializer(np.array(self.weight.shape, np.int64))
        return builder.node("Reshape", [flat, shape])
