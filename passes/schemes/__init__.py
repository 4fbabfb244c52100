# SPDX-License-Identifier: Apache-2.0
"""The mathematics of compression on arrays: fit(weight) -> parameters, decode, bits."""

from __future__ import annotations

import numpy as np

from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.codebook import Codebook, CodebookParameters
from passes.schemes.lossless import IntegerParameters, Lossless, LosslessParameters
from passes.schemes.trellis import Trellis, TrellisParameters
from passes.schemes.uniform import Uniform, UniformParameters

__all__ = [
    "Codebook",
    "CodebookParameters",
    "FitContext",
    "IntegerParameters",
    "Lossless",
    "LosslessParameters",
    "Parameters",
    "Scheme",
    "Trellis",
    "TrellisParameters",
    "Uniform",
    "UniformParameters",
    "bits",
    "decode",
]


def decode(parameters: Parameters) -> np.ndarray:
    """The weight that ``parameters`` stand for, in its own shape and type."""
    return parameters.decode()


def bits(parameters: Parameters) -> float:
    """Estimated bits of ``parameters``, side information included."""
    return parameters.bits()
