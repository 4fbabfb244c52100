# SPDX-License-Identifier: Apache-2.0
"""Training that ends in small networks: one loop, and methods as callbacks."""

from __future__ import annotations

from toolkit.train.batch_norm_statistics import BatchNormStatistics
from toolkit.train.bit_allocation import (
    Choice,
    gradient_norms,
    lagrangian,
    measured_choices,
    proportional,
)
from toolkit.train.callback import Callback, StepContext
from toolkit.train.channel_pruning import prune_channels
from toolkit.train.compressions import Compression
from toolkit.train.deep_compression import DeepCompression
from toolkit.train.distillation import Distillation, divergence
from toolkit.train.entropy_penalty import EntropyPenalty
from toolkit.train.latent_pruning import LatentPruning
from toolkit.train.learning_compression import LC
from toolkit.train.multiplier_search import (
    Found,
    Point,
    Target,
    search_multiplier,
    sweep,
)
from toolkit.train.quantized_distillation import (
    DifferentiableQuantization,
    QuantizedDistillation,
)
from toolkit.train.rate_control import RateControl
from toolkit.train.run_recipe import TrainReport, run_recipe
from toolkit.train.sensitivity_scan import Sensitivity, scan_sensitivity
from toolkit.train.sequence_distillation import sequence_task
from toolkit.train.staged_pruning import StagedPruning
from toolkit.train.task import (
    Evaluation,
    Task,
    accuracy,
    classification,
    cross_entropy,
    held_out,
    regression,
)
from toolkit.train.tensor_loader import IterableLoader, TensorLoader
from toolkit.train.train_settings import OptimizerSettings, ScheduleSettings, TrainSettings
from toolkit.train.trained_codebooks import TrainedCodebooks
from toolkit.train.trainer import Best, Result, Trainer
from toolkit.train.transform_domain import transform_recipe

__all__ = [
    "BatchNormStatistics",
    "Best",
    "Callback",
    "Choice",
    "Compression",
    "DeepCompression",
    "DifferentiableQuantization",
    "Distillation",
    "EntropyPenalty",
    "Evaluation",
    "Found",
    "IterableLoader",
    "LC",
    "LatentPruning",
    "OptimizerSettings",
    "Point",
    "QuantizedDistillation",
    "RateControl",
    "Result",
    "ScheduleSettings",
    "Sensitivity",
    "StagedPruning",
    "StepContext",
    "Target",
    "Task",
    "TensorLoader",
    "TrainReport",
    "TrainSettings",
    "TrainedCodebooks",
    "Trainer",
    "accuracy",
    "classification",
    "cross_entropy",
    "divergence",
    "gradient_norms",
    "held_out",
    "lagrangian",
    "measured_choices",
    "proportional",
    "prune_channels",
    "regression",
    "run_recipe",
    "scan_sensitivity",
    "search_multiplier",
    "sequence_task",
    "sweep",
    "transform_recipe",
]
