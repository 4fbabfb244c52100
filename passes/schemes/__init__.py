# SPDX-License-Identifier: Apache-2.0
"""The mathematics of compression on arrays: fit(weight) -> parameters, decode, bits."""

from __future__ import annotations

import numpy as np

from passes.schemes import codebook, lossless, uniform
from passes.schemes.codebook import Codebook, CodebookParameters
from passes.schemes.lossless import IntegerParameters, Lossless, LosslessParameters
from passes.schemes.uniform import Uniform, UniformParameters

Parameters = UniformParameters | CodebookParameters | LosslessParameters | IntegerParameters

__all__ = [
    "Codebook",
    "CodebookParameters",
    "IntegerParameters",
    "Lossless",
    "LosslessParameters",
    "Parameters",
    "Uniform",
    "UniformParameters",
    "bits",
    "decode",
]


def decode(parameters: Parameters) -> np.ndarray:
    """The weight that ``parameters`` stand for, in its own shape and type."""
    if isinstance(parameters, UniformParameters):
        return uniform.decode(parameters)
    if isinstance(parameters, CodebookParameters):
        return codebook.decode(parameters)
    return lossless.decode(parameters)


def bits(parameters: Parameters) -> float:
    """Estimated bits of ``parameters``, side information included."""
    if isinstance(parameters, UniformParameters):
        return uniform.bits(parameters)
    if isinstance(parameters, CodebookParameters):
        return codebook.bits(parameters)
    return lossless.bits(parameters)
