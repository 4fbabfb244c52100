# SPDX-License-Identifier: Apache-2.0
"""One convolutional network on CIFAR-10, compressed by each of the methods, equally counted.

`python -m models.cifar10_methods METHOD --amount A`: the amount trades size for accuracy, so
several runs give the method's curve. Every run starts from the same trained network and takes as
many epochs more; `float` takes them without any method, for comparison. Whatever a method leaves
alone (biases, batch normalisation) is counted as float32. Teacher, where there is one: the larger
network of `models.cifar10_training`, as in Polino et al. 2018.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from models.cifar10_training import fit, student, task, trained
from models.data.cifar10 import cifar10
from models.data.made_up import made_up_images
from models.data.splits import Splits
from models.recipe import Goal, Run, recipe_command
from passes.schemes import Codebook, RateAware, Uniform
from toolkit.nn import (
    AffineDecoder,
    Latent,
    Transformed,
    attach,
    attach_given,
)
from toolkit.train import (
    LC,
    BatchNormStatistics,
    Callback,
    DeepCompression,
    DifferentiableQuantization,
    Distillation,
    EntropyPenalty,
    QuantizedDistillation,
    scan_sensitivity,
)

NETWORK = "CIFAR-10 conv net"
_RATE = 1e-3
_LATENT_STEP = 0.03
_MINOR_STEP = 0.1  # as a multiple of the root mean square
_RISING = 0.3  # of the epochs, in which the price of a bit rises
_TAUGHT = 0.3  # of the loss; by more, three epochs end worse than without a teacher
_BUCKET = 256
_LC_FIRST, _LC_LAST = 0.01, 1.0
_SCANNED = 1000


@dataclass(frozen=True)
class Work:
    """A compression to be prepared: the trained ``model``, the ``amount``, the ``epochs`` there
    are, and what else the recipe has."""

    run: Run
    splits: Splits
    model: nn.Module
    amount: float
    epochs: int


@dataclass(frozen=True)
class Method:
    """How a trained network is compressed: ``prepare`` gives it forms and makes the callbacks;
    ``amounts`` are those of the curve; ``rate`` is Adam's, with factors by pattern of parameter
    names."""

    prepare: Callable[[Work], Sequence[Callback]]
    amounts: tuple[float, ...]
    unit: str
    rate: float = _RATE
    rate_factors: dict[str, float] = field(default_factory=dict)


def load(run: Run) -> Splits:
    """CIFAR-10, 5,000 of the training images held out; made-up images where the run is quick."""
    return made_up_images(512, 3, 32) if run.quick else cifar10()


def _layers(model: nn.Module) -> list[tuple[Any, str]]:
    """Convolutions and dense layers, and their names."""
    layers = [(module, name) for name, module in model.named_modules()]
    return [pair for pair in layers if isinstance(pair[0], nn.Linear | nn.Conv2d)]


def _rules(model: nn.Module, rule: Any) -> dict[str, Any]:
    return {f"{name}.weight": rule for _, name in _layers(model)}


def _teacher(work: Work) -> Distillation:
    return Distillation(trained("teacher", work.run, work.splits), alpha=_TAUGHT)


def _float(work: Work) -> Sequence[Callback]:
    return []


def _entropy(work: Work) -> Sequence[Callback]:
    for layer, _ in _layers(work.model):
        _attach_latent(layer, "weight", AffineDecoder(_LATENT_STEP))
    return [EntropyPenalty(work.amount, warmup=_RISING * work.epochs)]


def _entropy_all(work: Work) -> Sequence[Callback]:
    """Biases, scales and offsets of normalisation are latents too, under the same penalty."""
    for module in work.model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
            _attach_latent(module, "bias", AffineDecoder(relative_step=_MINOR_STEP))
        if isinstance(module, nn.BatchNorm2d):
            _attach_latent(module, "weight", AffineDecoder(relative_step=_MINOR_STEP))
    return _entropy(work)


def _attach_latent(module: nn.Module, name: str, decoder: AffineDecoder) -> None:
    attach(module, name, Latent(tuple(getattr(module, name).shape), decoder))


def _deep_compression(work: Work) -> Sequence[Callback]:
    parts = task(work.run, work.splits)
    scan = scan_sensitivity(work.model, parts, parts.validation.first(_SCANNED))
    method = DeepCompression(
        scan.prune_rules(1 - work.amount, stages=3),
        prune_starts=[share * work.epochs for share in (0.0, 0.2, 0.4)],
        codebooks=_rules(work.model, Codebook(entries=16)),
        codebook_start=0.7 * work.epochs,
    )
    return [method]


def _lc(work: Work) -> Sequence[Callback]:
    """Rate-aware, and the statistics of normalisation measured anew: they are of weights that are
    still on their way to those that are left."""
    rules = _rules(work.model, RateAware(beta=work.amount, trellis=True))
    steps = (4 if work.run.quick else 8) * work.epochs
    growth = (_LC_LAST / _LC_FIRST) ** (1 / (steps - 1))
    method = LC(rules, mu=_LC_FIRST, growth=growth, steps=steps)
    return [method, BatchNormStatistics()]


def _quantized_distillation(work: Work) -> Sequence[Callback]:
    bits = Uniform(
        bits=round(work.amount), scaling="linear", granularity="bucket", group_size=_BUCKET
    )
    return [QuantizedDistillation(_rules(work.model, bits)), _teacher(work)]


def _learned_points(work: Work) -> Sequence[Callback]:
    points = _rules(work.model, round(work.amount))
    method = DifferentiableQuantization(points, group_size=_BUCKET, train_weights=True)
    return [method, _teacher(work)]


def _transform(work: Work) -> Sequence[Callback]:
    inner = Uniform(relative_step=work.amount)
    for layer, _ in _layers(work.model):
        shape = tuple(layer.weight.shape)
        attach(layer, "weight", Transformed(shape, "dct", inner=inner))
    return []


METHODS = {
    "float": Method(_float, (32,), "bits"),
    "entropy": Method(_entropy, (1e-6, 3e-6, 1e-5), "nats per bit", rate=4e-3),
    "deep-compression": Method(_deep_compression, (0.2, 0.1, 0.05), "share kept"),
    "lc": Method(_lc, (1e-5, 2e-5, 3e-5), "nats per bit", rate=4e-3),
    "quantized-distillation": Method(_quantized_distillation, (4, 3, 2), "bits"),
    "differentiable-quantization": Method(_learned_points, (16, 8, 4), "points", rate=2e-3),
    "transform": Method(_transform, (0.5, 1, 2), "root mean squares per step", rate=2e-3),
    "entropy-all": Method(_entropy_all, (1e-7, 1e-6, 3e-6, 1e-5), "nats per bit", rate=4e-3),
}
"""What was tried on the validation part, rates among it, stands in CIFAR10_TUNING.md."""


def train(kind: str, run: Run, splits: Splits) -> nn.Module:
    """The compressed network."""
    method = METHODS[kind]
    epochs = 3 if run.quick else int(run.options["epochs"])
    model = trained("student", run, splits)
    work = Work(run, splits, model, float(run.options["amount"]), epochs)
    callbacks = method.prepare(work)
    fit(
        run,
        splits,
        model,
        callbacks,
        epochs,
        rate=method.rate,
        rate_factors=method.rate_factors,
        folder=run.checkpoints(kind),
    )
    for callback in callbacks:
        if isinstance(callback, LC | DeepCompression):
            attach_given(model, callback.parameters())
    return model


commands = {
    kind: recipe_command(
        f"cifar10_methods {kind}",
        Goal(NETWORK, kind, 1, 100),
        student,
        load,
        functools.partial(train, kind),
        {"amount": float(method.amounts[0]), "epochs": 3},
    )
    for kind, method in METHODS.items()
}

if __name__ == "__main__":
    import click

    click.Group("cifar10", commands)(prog_name="python -m models.cifar10_methods")
