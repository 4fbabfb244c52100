# SPDX-License-Identifier: Apache-2.0
"""Transform domain: coefficients times the basis, which the graph makes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.base import Chain
from passes.chains.folds import unfolded_axes
from passes.chains.inner import reshaped
from passes.chains.transform_basis import basis_of
from passes.schemes import TransformParameters
from passes.schemes.transform_basis import stages_of
from passes.select_weights import Weight
from passes.settings import Coder
from passes.symbol_packing import PackedSymbols, SymbolRequest


class TransformChain(Chain[TransformParameters]):
    """inner chain -> Mul steps -> Round -> Cast to double -> MatMul with the basis of each stage
    -> Mul -> Cast -> Transpose and Reshape -> [Mul mask].

    All products and sums of the MatMul are integers below 2^53, so its result is the same bit for
    bit in any ONNX Runtime.
    """

    def __init__(
        self, weight: Weight, parameters: TransformParameters, coder: Coder, opset: int
    ) -> None:
        super().__init__(weight, parameters, coder, opset)
        from passes.chains import chain_of  # which knows this class

        self.inner: Chain[Any] = chain_of(
            replace(
                weight,
                value=ir.Value(name=weight.name),  # without users: a Mul stands behind it
                shape=parameters.folding.folded_shape,
                dtype=ir.DataType.FLOAT,
                role="weight",
                channel_axis=None,
                permutation=None,
                is_convolution=True,  # neighbours along the last axis, as taps are
            ),
            parameters.inner,
            coder,
            opset,
        )

    def requests(self) -> list[SymbolRequest]:
        mask = self.parameters.mask
        return [*self.inner.requests(), *([] if mask is None else [self.request(mask)])]

    def build(self, builder: ChainBuilder, packed: Sequence[PackedSymbols]) -> ir.Value:
        fitted = self.parameters
        inner = packed if fitted.mask is None else packed[:-1]
        value = self.inner.build(builder, inner)
        value = builder.node("Mul", [value, builder.initializer(fitted.factors)])
        value = builder.node("Round", [value])
        value = builder.node("Cast", [value], {"to": int(ir.DataType.DOUBLE)})
        value = self._synthesised(builder, value)
        value = builder.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        value = unfolded_axes(builder, value, fitted.folding)
        if fitted.mask is not None:
            mask = self.transposed_back(builder, packed[-1].value)
            mask = builder.node("Cast", [mask], {"to": int(ir.DataType.FLOAT)})
            value = builder.node("Mul", [value, mask])
        if self.weight.dtype != ir.DataType.FLOAT:
            value = builder.node("Cast", [value], {"to": int(self.weight.dtype)})
        return value

    def _synthesised(self, builder: ChainBuilder, value: ir.Value) -> ir.Value:
        """``passes.schemes.transform_basis.synthesise``, and the power of two at its end."""
        fitted = self.parameters
        stages = stages_of(fitted.kind, fitted.folding.sizes, fitted.levels)
        after = fitted.folding.folded_shape[2]
        for index, stage in enumerate(stages):
            size = stage.basis.shape[0]
            after //= size
            if index:
                value = _scaled(builder, value, -stages[index - 1].shift)
                value = builder.node("Round", [value])
            basis = basis_of(builder, fitted.kind, fitted.levels, stage, turned=after > 1)
            if len(stages) > 1:
                shape = [-1, size, after] if after > 1 else [-1, size]
                value = reshaped(builder, value, shape)
            value = builder.node("MatMul", [basis, value] if after > 1 else [value, basis])
        return _scaled(builder, value, fitted.exponent - (stages[-1].shift if stages else 0))


def _scaled(builder: ChainBuilder, value: ir.Value, exponent: int) -> ir.Value:
    return builder.node("Mul", [value, builder.initializer(np.array(2.0**exponent, np.float64))])
