# SPDX-License-Identifier: Apache-2.0
"""DenseNet-BC: Huang, Liu, van der Maaten and Weinberger 2017, "Densely connected convolutional
networks", sections 3 (bottlenecks, compression 0.5) and 4 (CIFAR), table 1 (ImageNet)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class DenseNet(nn.Module):
    """Blocks of layers of which each reads all before it.

    Args:
        layers: layers of each block, each a 1x1 and a 3x3 convolution.
        growth: channels that a layer adds.
        stem: channels of the first convolution.
        num_classes: how many logits.
        small_images: begin with a 3x3 convolution (CIFAR), not with 7x7 and pooling (ImageNet).
    """

    def __init__(
        self,
        layers: Sequence[int],
        growth: int,
        stem: int,
        num_classes: int,
        small_images: bool,
    ) -> None:
        super().__init__()
        if small_images:
            parts = [("conv0", nn.Conv2d(3, stem, 3, padding=1, bias=False))]
        else:
            parts = [
                ("conv0", nn.Conv2d(3, stem, 7, 2, padding=3, bias=False)),
                ("norm0", nn.BatchNorm2d(stem)),
                ("relu0", nn.ReLU()),
                ("pool0", nn.MaxPool2d(3, 2, padding=1)),
            ]
        channels = stem
        for block, count in enumerate(layers, 1):
            for index in range(count):
                parts.append((f"block{block}_layer{index}", _Layer(channels, growth)))
                channels += growth
            if block < len(layers):
                parts.append((f"transition{block}", _transition(channels)))
                channels //= 2
        parts.append(("norm", nn.BatchNorm2d(channels)))
        self.features = nn.Sequential(OrderedDict(parts))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 3, height, width)."""
        value = functional.relu(self.features(images))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(value, 1), 1))


def densenet_bc_cifar(depth: int = 100, growth: int = 12, num_classes: int = 10) -> DenseNet:
    """DenseNet-BC of ``depth`` = 6n + 4 layers; L = 100, k = 12: 769,162 parameters.

    Raises:
        ValueError: the depth is not 6n + 4.
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth is {depth}, expected 6 n + 4: 40, 100, 190, 250")
    return DenseNet([(depth - 4) // 6] * 3, growth, 2 * growth, num_classes, True)


def densenet_121(num_classes: int = 1000) -> DenseNet:
    """For 224x224 images; 7,978,856 parameters for 1000 classes."""
    return DenseNet((6, 12, 24, 16), 32, 64, num_classes, False)


class _Layer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, value: Tensor) -> Tensor:
        new = self.conv1(functional.relu(self.norm1(value)))
        new = self.conv2(functional.relu(self.norm2(new)))
        return torch.cat([value, new], 1)


def _transition(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv, nn.AvgPool2d(2))
