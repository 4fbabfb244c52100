# SPDX-License-Identifier: Apache-2.0
"""Tucker-2: two MatMuls around the core."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.factors import FactorsChain
from passes.chains.inner import reshaped
from passes.schemes import TuckerParameters


class TuckerChain(FactorsChain[TuckerParameters]):
    """last x core -> [n, r_in, taps] -> transposed first x that -> [n, m, taps] -> weight."""

    def multiplied(self, builder: ChainBuilder, factors: Sequence[ir.Value]) -> ir.Value:
        dims, (r_out, r_in) = self.parameters.shape, self.parameters.ranks
        last, core, first = factors
        taps = prod(dims[2:])
        last = reshaped(builder, last, (dims[0], r_out))
        core = reshaped(builder, core, (r_out, r_in * taps))
        first = reshaped(builder, first, (r_in, dims[1]))
        wide = builder.node("MatMul", [last, core])
        wide = reshaped(builder, wide, (dims[0], r_in, taps))
        first = builder.node("Transpose", [first], {"perm": (1, 0)})
        value = builder.node("MatMul", [first, wide])
        return reshaped(builder, value, dims)
