# SPDX-License-Identifier: Apache-2.0
"""Deep Compression of LeNet-300-100 on MNIST. To beat: 27 KB, 40 x, at an error of 1.58 %."""

from __future__ import annotations

from torch import nn

from models.architectures.lenet import lenet_300_100
from models.data.splits import Splits
from models.lenet_deep_compression import Layer, deep_compression
from models.mnist_recipes import load_digits
from models.recipe import Goal, Run, recipe_command

GOAL = Goal("LeNet-300-100", "Deep Compression", 40, 1.6)
_LAYERS = {"ip1": Layer(0.045, 16), "ip2": Layer(0.07, 16), "ip3": Layer(0.25, 16)}


def train(run: Run, splits: Splits) -> nn.Module:
    """The pruned network with shared values."""
    return deep_compression(run, splits, lenet_300_100(), _LAYERS, 256)


command = recipe_command(
    "lenet300_deep_compression", GOAL, lenet_300_100, load_digits, train, {"epochs": 40}
)

if __name__ == "__main__":
    command(prog_name="python -m models.lenet300_deep_compression")
