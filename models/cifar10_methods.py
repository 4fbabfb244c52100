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
from passes.schemes import Codebook, Prune, Uniform
from toolkit.nn import (
    AffineDecoder,
    CodecRate,
    Latent,
    Transformed,
    attach,
    attach_given,
)
from toolkit.train import (
    LC,
    Callback,
    Compression,
    DeepCompression,
    DifferentiableQuantization,
    Distillation,
    EntropyPenalty,
    LatentPruning,
    QuantizedDistillation,
    scan_sensitivity,
)

NETWORK = "CIFAR-10 conv net"
_RATE = 1e-3
_LATENT_STEP = 0.03
_MIX_STEP, _MIX_PRUNED = 0.5, 0.5
_TAUGHT = 0.3  # of the loss; by more, three epochs end worse than without a teacher
_BUCKET = 256
_TRANSFORM_BITS = 6
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
        shape = tuple(layer.weight.shape)
        attach(layer, "weight", Latent(shape, AffineDecoder(_LATENT_STEP), rate=CodecRate(shape)))
    return [EntropyPenalty(work.amount, warmup=0.3 * work.epochs)]


def _mix(work: Work) -> Sequence[Callback]:
    """Latents, those of little worth set to zero in the first half of the time while the price of a
    bit rises, and some of a teacher."""
    for layer, _ in _layers(work.model):
        shape = tuple(layer.weight.shape)
        attach(layer, "weight", Latent(shape, AffineDecoder(relative_step=_MIX_STEP)))
    pruned = _MIX_PRUNED * work.epochs
    penalty = EntropyPenalty(work.amount, warmup=pruned)
    return [penalty, LatentPruning(pruned), _teacher(work)]


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
    kept = Prune(fraction=work.amount, inner=Codebook(entries=16))
    rules = _rules(work.model, Compression(kept, joint=("prune",)))
    steps = 4 * work.epochs
    return [LC(rules, mu=1e-3, growth=1000.0 ** (1 / steps), steps=steps)]


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
    inner = Uniform(bits=_TRANSFORM_BITS)
    for layer, _ in _layers(work.model):
        shape = tuple(layer.weight.shape)
        attach(layer, "weight", Transformed(shape, "dct", keep=work.amount, inner=inner))
    return []


METHODS = {
    "float": Method(_float, (32,), "bits"),
    "entropy": Method(_entropy, (1e-6, 3e-6, 1e-5), "nats per bit"),
    "deep-compression": Method(_deep_compression, (0.2, 0.1, 0.05), "share kept"),
    "lc": Method(_lc, (0.2, 0.1, 0.05), "share kept"),
    "quantized-distillation": Method(_quantized_distillation, (4, 3, 2), "bits"),
    "differentiable-quantization": Method(_learned_points, (16, 8, 4), "points"),
    "transform": Method(_transform, (0.8, 0.6, 0.4), "share of frequencies"),
    "mix": Method(
        _mix, (1e-7, 3e-7, 1e-6, 2e-6), "nats per bit", rate=4e-3, rate_factors={"*.log_step": 2.0}
    ),
}


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
