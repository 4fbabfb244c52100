# SPDX-License-Identifier: Apache-2.0
"""LeNet-300-100 on MNIST by the Learning-Compression algorithm: one bit per weight, 5 % of the
weights, and one bit per weight plus 1 % of corrections.

To beat: Idelbayev and Carreira-Perpinan 2020, "A flexible, extensible software framework for model
compression based on the LC algorithm": 2.56 % at 30.5 x, 2.18 % at 16 x, and 2.17 %. Digits are
moved by up to a pixel in training; there is no teacher; biases stay floats.
"""

from __future__ import annotations

import functools

from torch import nn

from models.architectures.lenet import lenet_300_100
from models.data.splits import Splits
from models.lenet_starts import LC_OPTIMIZER, lenet300_plain
from models.mnist_recipes import load_digits, train_digits
from models.recipe import Goal, Run, recipe_command
from passes.schemes import Codebook, Prune, Sum
from toolkit.nn import attach_given
from toolkit.train import LC
from toolkit.train.compressions import Compression, Rules

BIT = "LC, 1 bit per weight"
KEEP = "LC, keep 5 %"
SUM = "LC, 1 bit per weight + 1 %"
GOALS = {
    "bit": Goal("LeNet-300-100", BIT, 30, 2.56),
    "keep": Goal("LeNet-300-100", KEEP, 16, 2.18),
    "sum": Goal("LeNet-300-100", SUM, 25, 2.17),
}


def rules(kind: str) -> Rules:
    """Compressions by pattern of parameter names."""
    if kind == "keep":
        return {"*.weight": Compression(Prune(fraction=0.05), joint=("prune",))}
    bit = Codebook(entries=2)
    return {"*.weight": bit if kind == "bit" else Sum((bit, Prune(fraction=0.01)))}


def train(kind: str, run: Run, splits: Splits) -> nn.Module:
    """The compressed network."""
    epochs = 4 if run.quick else run.options["epochs"]
    model = lenet300_plain(run, splits)
    method = LC(rules(kind), mu=1e-3, growth=1.0 if run.quick else 1.25, steps=epochs)
    train_digits(
        run,
        splits,
        None,
        model,
        [method],
        stage="lc",
        epochs=epochs,
        batch_size=256,
        optimizer=LC_OPTIMIZER.model_copy(update={"rate": 0.05}),
        select="best",
    )
    attach_given(model, method.parameters())
    return model


commands = {
    kind: recipe_command(
        f"lenet300_lc {kind}",
        goal,
        lenet_300_100,
        load_digits,
        functools.partial(train, kind),
        {"epochs": 30},
    )
    for kind, goal in GOALS.items()
}

if __name__ == "__main__":
    import click

    click.Group("lc", commands)(prog_name="python -m models.lenet300_lc")
