# SPDX-License-Identifier: Apache-2.0
"""The nodes from a weight's symbols back to the weight, by kind of parameters."""

from __future__ import annotations

from typing import Any

from passes.chains.base import Chain
from passes.chains.codebook import CodebookChain
from passes.chains.cosine_rows import CosineRowsChain
from passes.chains.lossless import IntegerChain, LosslessChain
from passes.chains.low_rank import LowRankChain
from passes.chains.matrix_steps import MatrixChain
from passes.chains.prune import PruneChain
from passes.chains.scaled import ScaledChain
from passes.chains.sums import SumChain
from passes.chains.transform import TransformChain
from passes.chains.trellis import TrellisChain
from passes.chains.tucker import TuckerChain
from passes.chains.uniform import UniformChain
from passes.schemes import (
    BinaryParameters,
    CodebookParameters,
    CosineRowsParameters,
    FixedPointParameters,
    IntegerParameters,
    LosslessParameters,
    LowRankParameters,
    MatrixParameters,
    Parameters,
    PointsParameters,
    PowerOfTwoParameters,
    PruneParameters,
    ScaledParameters,
    SumParameters,
    TernaryParameters,
    TransformParameters,
    TrellisParameters,
    TuckerParameters,
    UniformParameters,
)
from passes.select_weights import Weight
from passes.settings import Coder

__all__ = [
    "Chain",
    "chain_of",
]

_CHAINS: dict[type[Parameters], type[Chain[Any]]] = {
    BinaryParameters: UniformChain,
    CodebookParameters: CodebookChain,
    CosineRowsParameters: CosineRowsChain,
    FixedPointParameters: UniformChain,
    IntegerParameters: IntegerChain,
    LosslessParameters: LosslessChain,
    LowRankParameters: LowRankChain,
    MatrixParameters: MatrixChain,
    PointsParameters: CodebookChain,
    PowerOfTwoParameters: CodebookChain,
    PruneParameters: PruneChain,
    ScaledParameters: ScaledChain,
    SumParameters: SumChain,
    TernaryParameters: UniformChain,
    TransformParameters: TransformChain,
    TrellisParameters: TrellisChain,
    TuckerParameters: TuckerChain,
    UniformParameters: UniformChain,
}


def chain_of(weight: Weight, parameters: Parameters, coder: Coder, opset: int) -> Chain[Any]:
    """The chain that decodes ``parameters`` of ``weight`` under ONNX opset ``opset``."""
    return _CHAINS[type(parameters)](weight, parameters, coder, opset)
