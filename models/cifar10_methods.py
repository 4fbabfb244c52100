# SPDX-License-Identifier: Apache-2.0
"""One small convolutional network on CIFAR-10, compressed by each of the methods, equally counted.

`python -m models.cifar10_methods METHOD --amount A`: the amount trades size for accuracy, so
several runs give the method's curve. The network is the smallest student of Polino et al. 2018
(section 5.1, 0.1 M parameters, with batch normalisation). Each run trains it plainly, then by the
method for as many epochs again, with shifts and flips, and without a teacher except for
`quantized-distillation`, whose teacher is the plainly trained network itself.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.architectures.layer_string import STUDENTS, layer_string_net
from models.data.augment import flip, shift
from models.data.cifar10 import cifar10
from models.data.made_up import made_up_images
from models.data.splits import Splits
from models.recipe import Goal, Run, recipe_command
from passes.schemes import Codebook, Prune, Uniform
from toolkit.nn import AffineDecoder, CodecRate, Latent, Transformed, attach, attach_given
from toolkit.train import (
    LC,
    Callback,
    DeepCompression,
    DifferentiableQuantization,
    Distillation,
    EntropyPenalty,
    OptimizerSettings,
    QuantizedDistillation,
    ScheduleSettings,
    TensorLoader,
    Trainer,
    classification,
)

_BATCH = 128
_RATE = 2e-3
_LATENT_STEP = 0.02


@dataclass(frozen=True)
class Method:
    """How a trained network is compressed: ``prepare`` gives it forms and makes the callbacks,
    given the amount and the epochs; ``amount`` is a usual one."""

    prepare: Callable[[nn.Module, float, int], Sequence[Callback]]
    amount: float
    rate_factors: tuple[tuple[str, float], ...] = ()


def original() -> nn.Sequential:
    """The network."""
    return layer_string_net(STUDENTS["0.1M"])


def load(run: Run) -> Splits:
    """CIFAR-10, 5,000 of the training images held out; made-up images where the run is quick."""
    return made_up_images(512, 3, 32) if run.quick else cifar10()


def _weights(model: nn.Module) -> list[tuple[Any, str]]:
    """Layers with a weight of two dimensions or more, and their names."""
    layers = [(module, name) for name, module in model.named_modules()]
    return [pair for pair in layers if isinstance(pair[0], nn.Linear | nn.Conv2d)]


def _rules(model: nn.Module, rule: Any) -> dict[str, Any]:
    return {f"{name}.weight": rule for _, name in _weights(model)}


def _entropy(model: nn.Module, amount: float, epochs: int) -> Sequence[Callback]:
    for layer, _ in _weights(model):
        shape = tuple(layer.weight.shape)
        attach(layer, "weight", Latent(shape, AffineDecoder(_LATENT_STEP), rate=CodecRate(shape)))
    return [EntropyPenalty(amount, warmup=0.3 * epochs)]


def _deep_compression(model: nn.Module, amount: float, epochs: int) -> Sequence[Callback]:
    stages = tuple(1 - amount**share for share in (0.5, 1.0))
    method = DeepCompression(
        _rules(model, Prune(sparsity=stages)),
        prune_starts=(0.0, 0.3 * epochs),
        codebooks=_rules(model, Codebook(entries=16)),
        codebook_start=0.7 * epochs,
    )
    return [method]


def _lc(model: nn.Module, amount: float, epochs: int) -> Sequence[Callback]:
    rules = _rules(model, Codebook(entries=round(amount)))
    return [LC(rules, mu=1e-3, growth=1000.0 ** (1 / epochs), steps=epochs)]


def _quantized_distillation(model: nn.Module, amount: float, epochs: int) -> Sequence[Callback]:
    teacher = copy.deepcopy(model)
    rules = _rules(model, Uniform(bits=round(amount), granularity="row"))
    return [QuantizedDistillation(rules), Distillation(teacher)]


def _learned_points(model: nn.Module, amount: float, epochs: int) -> Sequence[Callback]:
    points = _rules(model, round(amount))
    return [DifferentiableQuantization(points, granularity="row", train_weights=True)]


def _transform(model: nn.Module, amount: float, epochs: int) -> Sequence[Callback]:
    for layer, _ in _weights(model):
        shape = tuple(layer.weight.shape)
        attach(layer, "weight", Transformed(shape, "dct", keep=amount, inner=Uniform(bits=6)))
    return []


METHODS = {
    "entropy": Method(_entropy, 1e-6, (("*.log_step", 5.0),)),
    "deep-compression": Method(_deep_compression, 0.1),
    "lc": Method(_lc, 4),
    "quantized-distillation": Method(_quantized_distillation, 4),
    "differentiable-quantization": Method(_learned_points, 16),
    "transform": Method(_transform, 0.7),
}


def train(kind: str, run: Run, splits: Splits) -> nn.Module:
    """The compressed network."""
    method = METHODS[kind]
    epochs = 3 if run.quick else int(run.options["epochs"])
    model = original().to(memory_format=torch.channels_last)
    _fit(run, splits, model, [], epochs, ())
    callbacks = method.prepare(model, float(run.options["amount"]), epochs)
    _fit(run, splits, model, callbacks, epochs, method.rate_factors)
    for callback in callbacks:
        if isinstance(callback, LC | DeepCompression):
            attach_given(model, callback.parameters())
    return model


def _fit(
    run: Run,
    splits: Splits,
    model: nn.Module,
    callbacks: Sequence[Callback],
    epochs: int,
    rate_factors: tuple[tuple[str, float], ...],
) -> None:
    train_part = TensorLoader(
        splits.train.inputs,
        splits.train.labels,
        batch_size=_BATCH,
        shuffle=True,
        drop_last=True,
        seed=run.seed,
        augment=_augmented,
    )
    validation = TensorLoader(splits.validation.inputs, splits.validation.labels, batch_size=500)
    Trainer(
        model,
        classification(train_part, validation),
        callbacks,
        epochs=epochs,
        optimizer=OptimizerSettings(name="adam", rate=_RATE, rate_factors=dict(rate_factors)),
        schedule=ScheduleSettings(name="cosine"),
        seed=run.seed,
        select="last",
    ).fit()


def _augmented(images: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    return flip(shift(images, 4, chance), chance)


commands = {
    kind: recipe_command(
        f"cifar10_methods {kind}",
        Goal("conv net, 0.1 M", kind, 1, 100),
        original,
        load,
        functools.partial(train, kind),
        {"amount": method.amount, "epochs": 30},
    )
    for kind, method in METHODS.items()
}

if __name__ == "__main__":
    import click

    click.Group("cifar10", commands)(prog_name="python -m models.cifar10_methods")
