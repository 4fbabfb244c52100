# SPDX-License-Identifier: Apache-2.0
"""Graph passes that compress ONNX models: ir.Model in, ir.Model out."""

from __future__ import annotations

from passes.channels import PrunedGroup
from passes.clean_up import CleanUp
from passes.compact_chains import CompactChains
from passes.embed_functions import EmbedFunctions
from passes.encode_weights import EncodedWeight, EncodeResult, EncodeWeights
from passes.errors import ModelError, SchemeError, SettingsError
from passes.factorize_weights import FactorizedWeight, FactorizeResult, FactorizeWeights
from passes.fit_weight import fit_weight
from passes.fold_batch_norm import FoldBatchNorm, FoldResult
from passes.lift_weights import LiftWeights
from passes.merge_weights import MergeResult, MergeWeights
from passes.model_file import LoadedModel, read_model, write_model
from passes.model_writer import model_to_proto
from passes.prune_channels import PruneChannels, PruneResult
from passes.select_weights import Weight, coder_view, select_weights
from passes.settings import Coding, Recipe, Rule, WeightSettings
from passes.shorten_batch_norm import ShortenBatchNorm
from passes.simplify_nodes import SimplifyNodes
from passes.symbol_packing import PackingLimits

__all__ = [
    "CleanUp",
    "Coding",
    "CompactChains",
    "EmbedFunctions",
    "EncodeResult",
    "EncodeWeights",
    "EncodedWeight",
    "FactorizeResult",
    "FactorizeWeights",
    "FactorizedWeight",
    "FoldBatchNorm",
    "FoldResult",
    "LiftWeights",
    "LoadedModel",
    "MergeResult",
    "MergeWeights",
    "ModelError",
    "PackingLimits",
    "PruneChannels",
    "PruneResult",
    "PrunedGroup",
    "Recipe",
    "Rule",
    "SchemeError",
    "SettingsError",
    "ShortenBatchNorm",
    "SimplifyNodes",
    "Weight",
    "WeightSettings",
    "coder_view",
    "fit_weight",
    "model_to_proto",
    "read_model",
    "select_weights",
    "write_model",
]
