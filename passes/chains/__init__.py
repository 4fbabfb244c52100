# SPDX-License-Identifier: Apache-2.0
"""The nodes from a weight's symbols back to the weight, by kind of parameters."""

from __future__ import annotations

from typing import Any

from passes.chains.base import Chain
from passes.chains.codebook import CodebookChain
from passes.chains.lossless import IntegerChain, LosslessChain
from passes.chains.trellis import TrellisChain
from passes.chains.uniform import UniformChain
from passes.schemes import (
    CodebookParameters,
    IntegerParameters,
    LosslessParameters,
    Parameters,
    TrellisParameters,
    UniformParameters,
)
from passes.select_weights import Weight
from passes.settings import Coder

__all__ = ["Chain", "chain_of"]

_CHAINS: dict[type[Parameters], type[Chain[Any]]] = {
    CodebookParameters: CodebookChain,
    IntegerParameters: IntegerChain,
    LosslessParameters: LosslessChain,
    TrellisParameters: TrellisChain,
    UniformParameters: UniformChain,
}


def chain_of(weight: Weight, parameters: Parameters, coder: Coder, opset: int) -> Chain[Any]:
    """The chain that decodes ``parameters`` of ``weight`` under ONNX opset ``opset``."""
    return _CHAINS[type(parameters)](weight, parameters, coder, opset)
