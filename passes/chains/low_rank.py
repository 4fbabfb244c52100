# SPDX-License-Identifier: Apache-2.0
"""Low rank: a MatMul of the two factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.factors import FactorsChain
from passes.chains.inner import reshaped
from passes.schemes import LowRankParameters


class LowRankChain(FactorsChain[LowRankParameters]):
    """factors -> [Transpose, Reshape] -> MatMul -> [Reshape, Transpose] -> weight."""

    def multiplied(self, builder: ChainBuilder, factors: Sequence[ir.Value]) -> ir.Value:
        unfolding, rank = self.parameters.unfolding, self.parameters.rank
        rows, columns = unfolding.matrix_shape
        left, right = factors
        if unfolding.left_is_moved:
            axes = (0, *range(2, len(unfolding.shape)), 1)
            left = builder.node("Transpose", [left], {"perm": axes})
        if unfolding.is_layers:
            left = reshaped(builder, left, (rows, rank))
            right = reshaped(builder, right, (rank, columns))
        value = builder.node("MatMul", [left, right])
        if len(unfolding.shape) > 2:
            value = reshaped(builder, value, unfolding.permuted)
        if unfolding.axes != tuple(range(len(unfolding.shape))):
            inverse = [int(axis) for axis in np.argsort(unfolding.axes)]
            value = builder.node("Transpose", [value], {"perm": inverse})
        return value
