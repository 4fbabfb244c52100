# SPDX-License-Identifier: Apache-2.0
"""LeNet-5 on MNIST as small as it gets: channel pruning, entropy-penalised latents, a teacher.

To beat: Oktay et al. 2020, table 1: 2.84 KB, 606 x, at an error of 1.0 %.

The network is trained, the strongest filters and units stay (which also makes the rest of the way
six times as fast), then as for LeNet-300-100.
"""

from __future__ import annotations

from torch import nn

from models.architectures.lenet import lenet_5_caffe
from models.data.splits import Splits
from models.lenet_latents import attach_latents, train_latents
from models.lenet_starts import lenet5_for_latents
from models.mnist_recipes import digits_logits, load_digits
from models.recipe import Goal, Run, recipe_command

GOAL = Goal("LeNet-5", "smallest", 606, 1.0)
_STEPS = {"conv1": 0.2, "conv2": 0.06, "ip1": 0.06, "ip2": 0.06}


def train(run: Run, splits: Splits) -> nn.Module:
    """The trained network with latents, dead units removed."""
    epochs = 2 if run.quick else run.options["epochs"]
    model = lenet5_for_latents(run, splits)
    logits = digits_logits(run, splits)
    attach_latents(model, _STEPS, places={"ip1": 16})
    return train_latents(run, splits, logits, model, epochs=epochs, warmup=0.2, batch_size=256)


command = recipe_command(
    "lenet5_smallest", GOAL, lenet_5_caffe, load_digits, train, {"multiplier": 1.2e-5, "epochs": 45}
)

if __name__ == "__main__":
    command(prog_name="python -m models.lenet5_smallest")
