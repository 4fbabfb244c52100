# SPDX-License-Identifier: Apache-2.0
"""Deep Compression of the LeNets: Han, Mao and Dally 2016, "Deep Compression", tables 1 to 3.

Training; pruning by absolute value in three stages with training between them; then weights share
the values of a codebook for each layer, which are trained; then coding. Biases get codebooks too.
Digits are moved by up to a pixel in training; there is no teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from models.data.splits import Splits
from models.mnist_recipes import train_digits
from models.recipe import Run
from passes.schemes import Codebook, Prune
from toolkit.nn import attach_given
from toolkit.train import DeepCompression, OptimizerSettings

_BIAS_ENTRIES = 8
_FIRST, _SECOND, _THIRD, _TIED = 0.25, 0.4, 0.55, 0.8
"""When the stages of pruning and the codebooks begin, as shares of all epochs."""


@dataclass(frozen=True)
class Layer:
    """What is left of a layer: the share of its weights that is kept, and entries of its
    codebook."""

    kept: float
    entries: int


def deep_compression(
    run: Run, splits: Splits, model: nn.Sequential, layers: Mapping[str, Layer], batch_size: int
) -> nn.Module:
    """Trains and compresses ``model``; its weights and biases have the forms that are stored.

    Args:
        run: Its option ``epochs`` counts.
        splits: Of `load_digits`.
        model: Untrained.
        layers: By name.
        batch_size: Samples of a batch.
    """
    epochs = 10 if run.quick else run.options["epochs"]
    rules = {}
    for name, layer in layers.items():
        stages = tuple(1 - layer.kept**share for share in (0.5, 0.75, 1.0))
        rules[f"{name}.weight"] = Prune(sparsity=stages)
    books = {f"{name}.weight": Codebook(entries=layer.entries) for name, layer in layers.items()}
    method = DeepCompression(
        rules,
        prune_starts=[epochs * share for share in (_FIRST, _SECOND, _THIRD)],
        codebooks={**books, "*.bias": Codebook(entries=_BIAS_ENTRIES)},
        codebook_start=epochs * _TIED,
    )
    train_digits(
        run,
        splits,
        None,
        model,
        [method],
        stage="deep compression",
        epochs=epochs,
        batch_size=batch_size,
        optimizer=OptimizerSettings(name="adam", rate=2e-3),
        select="best",
    )
    attach_given(model, method.parameters())
    return model
