# SPDX-License-Identifier: Apache-2.0
"""Dependent quantisation: the decoder gives integers, which are dequantised like uniform ones."""

from __future__ import annotations

from passes.chains.uniform import UniformChain
from passes.errors import SchemeError
from passes.schemes.trellis import TrellisParameters
from passes.schemes.uniform import UniformParameters
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import SymbolRequest


class TrellisChain(UniformChain):
    """symbols, of which the decoder makes integers -> DequantizeLinear, or Cast and Mul.

    The symbols are coded in the order in the rows of which the trellis was fitted.

    Raises SchemeError where another coder than the wide one is asked for.
    """

    def __init__(
        self, weight: Weight, parameters: TrellisParameters, coder: Coder, opset: int
    ) -> None:
        if coder not in ("auto", "wide"):
            raise SchemeError(f"trellis: only the wide coder knows its symbols, not {coder}")
        integers = UniformParameters(
            parameters.integers, parameters.scale, None, parameters.axis, 0, parameters.dtype
        )
        self._fitted = parameters
        super().__init__(weight, integers, coder, opset)
        self._symbols = parameters.symbols.astype(integers.symbols.dtype)

    def coder_view(self, weight: Weight) -> tuple[tuple[int, ...] | None, tuple[int, int, int]]:
        return self._fitted.order, self._fitted.view

    def requests(self) -> list[SymbolRequest]:
        name, shape = self.weight.name, self._symbols.shape
        request = SymbolRequest(name, self._symbols, self.view, shape, "wide", trellis=True)
        return [request, *super().requests()[1:]]
