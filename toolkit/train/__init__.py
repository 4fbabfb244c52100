# SPDX-License-Identifier: Apache-2.0
"""Training that ends in small networks: one loop, and methods as callbacks."""

from __future__ import annotations

from toolkit.train.callback import Callback, StepContext
from toolkit.train.compressions import Compression
from toolkit.train.deep_compression import DeepCompression
from toolkit.train.entropy_penalty import EntropyPenalty
from toolkit.train.learning_compression import LC
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

__all__ = [
    "LC",
    "Best",
    "Callback",
    "Compression",
    "DeepCompression",
    "EntropyPenalty",
    "Evaluation",
    "IterableLoader",
    "OptimizerSettings",
    "Result",
    "ScheduleSettings",
    "StagedPruning",
    "StepContext",
    "Task",
    "TensorLoader",
    "TrainSettings",
    "TrainedCodebooks",
    "Trainer",
    "accuracy",
    "classification",
    "cross_entropy",
    "held_out",
    "regression",
]
