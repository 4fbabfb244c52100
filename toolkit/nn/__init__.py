# SPDX-License-Identifier: Apache-2.0
"""Layers and parametrizations of torch that train a network in its compressed form."""

from __future__ import annotations

from toolkit.nn.baking import unwrap
from toolkit.nn.codec_rate import CodecRate
from toolkit.nn.combined import Factored, Summed
from toolkit.nn.compressed import (
    Compressed,
    attach,
    original_of,
    originals,
    parametrizations,
)
from toolkit.nn.decoders import AffineDecoder, Decoder
from toolkit.nn.density_rate import DensityRate
from toolkit.nn.factorized_prior import FactorizedPrior, auxiliary_loss, prior_per_tap
from toolkit.nn.fitted import Fitted
from toolkit.nn.frequency_decoder import FrequencyDecoder, MatrixDecoder
from toolkit.nn.given import Given, attach_given
from toolkit.nn.joint import Joint
from toolkit.nn.latent import Latent
from toolkit.nn.layers import (
    EntropyConv2d,
    EntropyLinear,
    LowRankConv2d,
    LowRankLinear,
    MaskedConv2d,
    MaskedLinear,
    QuantizedConv2d,
    QuantizedLinear,
    TransformConv2d,
    TransformLinear,
)
from toolkit.nn.learned_points import LearnedPoints
from toolkit.nn.masked import Masked
from toolkit.nn.model_size import (
    compressed_bytes,
    fit_all,
    fitted_parameters,
    plain_bytes,
    rate_bits,
    rate_exact_bits,
    update_averages,
)
from toolkit.nn.remove_units import alive_units, keep_units, strongest_units
from toolkit.nn.transformed import LearnedCosines, Transformed
from toolkit.nn.wrapping import form_of, wrap

__all__ = [
    "AffineDecoder",
    "CodecRate",
    "Compressed",
    "Decoder",
    "DensityRate",
    "EntropyConv2d",
    "EntropyLinear",
    "Factored",
    "FactorizedPrior",
    "Fitted",
    "FrequencyDecoder",
    "Given",
    "Joint",
    "Latent",
    "LearnedCosines",
    "LearnedPoints",
    "LowRankConv2d",
    "LowRankLinear",
    "Masked",
    "MaskedConv2d",
    "MaskedLinear",
    "MatrixDecoder",
    "QuantizedConv2d",
    "QuantizedLinear",
    "Summed",
    "TransformConv2d",
    "TransformLinear",
    "Transformed",
    "alive_units",
    "attach",
    "auxiliary_loss",
    "attach_given",
    "compressed_bytes",
    "fit_all",
    "fitted_parameters",
    "form_of",
    "keep_units",
    "original_of",
    "originals",
    "parametrizations",
    "plain_bytes",
    "prior_per_tap",
    "rate_bits",
    "rate_exact_bits",
    "strongest_units",
    "unwrap",
    "update_averages",
    "wrap",
]
