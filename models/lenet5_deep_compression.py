# SPDX-License-Identifier: Apache-2.0
"""Deep Compression of LeNet-5 on MNIST. To beat: 44 KB, 39 x, at an error of 0.74 %."""

from __future__ import annotations

import torch
from torch import nn

from models.architectures.lenet import lenet_5_caffe
from models.data.splits import Splits
from models.lenet_deep_compression import Layer, deep_compression
from models.mnist_recipes import load_digits
from models.recipe import Goal, Run, recipe_command

GOAL = Goal("LeNet-5", "Deep Compression", 39, 0.8)
_LAYERS = {
    "conv1": Layer(0.66, 32),
    "conv2": Layer(0.12, 32),
    "ip1": Layer(0.035, 16),
    "ip2": Layer(0.19, 16),
}


def train(run: Run, splits: Splits) -> nn.Module:
    """The pruned network with shared values."""
    model = lenet_5_caffe().to(memory_format=torch.channels_last)
    return deep_compression(run, splits, model, _LAYERS, 128)


command = recipe_command(
    "lenet5_deep_compression", GOAL, lenet_5_caffe, load_digits, train, {"epochs": 10}
)

if __name__ == "__main__":
    command(prog_name="python -m models.lenet5_deep_compression")
