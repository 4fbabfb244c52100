# SPDX-License-Identifier: Apache-2.0
"""LeNet-300-100 on MNIST as small as it gets: entropy-penalised latents and a teacher.

To beat: Oktay et al. 2020, table 1: 8.56 KB, 124 x, at an error of 1.9 %.

A few epochs of ordinary training; then latents with a rate whose weight rises for a third of the
way; then units without inputs or outputs are removed.
"""

from __future__ import annotations

from torch import nn

from models.architectures.lenet import lenet_300_100
from models.data.splits import Splits
from models.lenet_latents import attach_latents, train_latents
from models.lenet_starts import lenet300_for_latents
from models.mnist_recipes import digits_logits, load_digits
from models.recipe import Goal, Run, recipe_command

GOAL = Goal("LeNet-300-100", "smallest", 124, 1.9)
_STEPS = {"ip1": 0.06, "ip2": 0.06, "ip3": 0.06}


def train(run: Run, splits: Splits) -> nn.Module:
    """The trained network with latents, dead units removed."""
    epochs = 2 if run.quick else run.options["epochs"]
    model = lenet300_for_latents(run, splits)
    logits = digits_logits(run, splits)
    attach_latents(model, _STEPS)
    return train_latents(run, splits, logits, model, epochs=epochs, warmup=0.3, batch_size=512)


command = recipe_command(
    "lenet300_smallest",
    GOAL,
    lenet_300_100,
    load_digits,
    train,
    {"multiplier": 1.6e-5, "epochs": 60},
)

if __name__ == "__main__":
    command(prog_name="python -m models.lenet300_smallest")
