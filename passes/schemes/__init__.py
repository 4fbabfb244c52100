# SPDX-License-Identifier: Apache-2.0
"""The mathematics of compression on arrays: fit(weight) -> parameters, decode, bits."""

from __future__ import annotations

import numpy as np

from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.binary import Binary, BinaryParameters, Ternary, TernaryParameters
from passes.schemes.codebook import Codebook
from passes.schemes.codebook_parameters import CodebookParameters, joint_bits
from passes.schemes.compensated import Compensated
from passes.schemes.compensated_trellis import CompensatedTrellis
from passes.schemes.cosine_rows import CosineRows, CosineRowsParameters
from passes.schemes.fixed_point import FixedPoint, FixedPointParameters
from passes.schemes.joint_fit import fit_jointly
from passes.schemes.joint_low_rank import factorize_jointly
from passes.schemes.joint_pruning import prune_jointly
from passes.schemes.latent import Latent, LearnedPoints
from passes.schemes.lossless import IntegerParameters, Lossless, LosslessParameters
from passes.schemes.low_rank import LowRank
from passes.schemes.low_rank_factors import LowRankParameters
from passes.schemes.matrix_steps import MatrixParameters
from passes.schemes.moments import MatrixLayout, Moments, RowUse
from passes.schemes.points import Points, PointsParameters, PowerOfTwo, PowerOfTwoParameters
from passes.schemes.prune_parameters import PruneParameters
from passes.schemes.pruning import Prune
from passes.schemes.rate_aware import RateAware
from passes.schemes.rate_distortion import RateDistortion
from passes.schemes.scaled import Scaled, ScaledParameters
from passes.schemes.sparsity_allocation import sparsities_for_total
from passes.schemes.sums import Sum, SumParameters
from passes.schemes.transform import Transform
from passes.schemes.transform_choice import AutoTransform
from passes.schemes.transform_parameters import TransformParameters
from passes.schemes.trellis import Trellis, TrellisParameters
from passes.schemes.tucker import Tucker, TuckerParameters
from passes.schemes.uniform import Uniform, UniformParameters

__all__ = [
    "AutoTransform",
    "Binary",
    "BinaryParameters",
    "Codebook",
    "CodebookParameters",
    "Compensated",
    "CompensatedTrellis",
    "CosineRows",
    "CosineRowsParameters",
    "FitContext",
    "FixedPoint",
    "FixedPointParameters",
    "IntegerParameters",
    "Latent",
    "LearnedPoints",
    "Lossless",
    "LosslessParameters",
    "LowRank",
    "LowRankParameters",
    "MatrixLayout",
    "MatrixParameters",
    "Moments",
    "Parameters",
    "Points",
    "PointsParameters",
    "PowerOfTwo",
    "PowerOfTwoParameters",
    "Prune",
    "PruneParameters",
    "RateAware",
    "RateDistortion",
    "RowUse",
    "Scaled",
    "ScaledParameters",
    "Scheme",
    "Sum",
    "SumParameters",
    "Ternary",
    "TernaryParameters",
    "Transform",
    "TransformParameters",
    "Trellis",
    "TrellisParameters",
    "Tucker",
    "TuckerParameters",
    "Uniform",
    "UniformParameters",
    "bits",
    "decode",
    "factorize_jointly",
    "fit_jointly",
    "joint_bits",
    "prune_jointly",
    "sparsities_for_total",
]


def decode(parameters: Parameters) -> np.ndarray:
    """The weight that ``parameters`` stand for, in its own shape and type."""
    return parameters.decode()


def bits(parameters: Parameters) -> float:
    """Estimated bits of ``parameters``, side information included."""
    return parameters.bits()
