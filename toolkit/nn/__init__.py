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
<<<<<<< HEAD
from toolkit.nn.density_rate import DensityRate
=======
from toolkit.nn.factorized_prior import FactorizedPrior, auxiliary_loss, prior_per_tap
>>>>>>> 5d27224 (toolkit.nn: frequency and matrix decoders, factorised prior, transform-domain weights, factors, sums)
from toolkit.nn.fitted import Fitted
from toolkit.nn.frequency_decoder import FrequencyDecoder, MatrixDecoder
from toolkit.nn.latent import Latent
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
<<<<<<< HEAD
from toolkit.nn.remove_units import alive_units, keep_units, strongest_units
=======
from toolkit.nn.transformed import LearnedCosines, Transformed
>>>>>>> 5d27224 (toolkit.nn: frequency and matrix decoders, factorised prior, transform-domain weights, factors, sums)

__all__ = [
    "AffineDecoder",
    "CodecRate",
    "Compressed",
    "Decoder",
<<<<<<< HEAD
    "DensityRate",
=======
    "Factored",
    "FactorizedPrior",
>>>>>>> 5d27224 (toolkit.nn: frequency and matrix decoders, factorised prior, transform-domain weights, factors, sums)
    "Fitted",
    "FrequencyDecoder",
    "Latent",
    "LearnedCosines",
    "LearnedPoints",
    "Masked",
<<<<<<< HEAD
    "alive_units",
=======
    "MatrixDecoder",
    "Summed",
    "Transformed",
>>>>>>> 5d27224 (toolkit.nn: frequency and matrix decoders, factorised prior, transform-domain weights, factors, sums)
    "attach",
    "auxiliary_loss",
    "compressed_bytes",
    "fit_all",
    "fitted_parameters",
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
]
