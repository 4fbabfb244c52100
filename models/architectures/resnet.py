# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 and ResNet-50 for 224x224 images.

He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition", table 1; shortcuts
between sizes are 1x1 convolutions (option B), and the 3x3 convolution of a bottleneck has the
stride, as published weights have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResNet(nn.Module):
    """Residual network of four stages.

    Args:
        blocks: blocks of each stage.
        bottleneck: blocks of three convolutions, four times as wide at their ends.
        num_classes: how many logits.
    """

    def __init__(self, blocks: Sequence[int], bottleneck: bool, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        channels, parts = 64, []
        for stage, count in enumerate(blocks):
            for index in range(count):
                block = _Block(channels, 64 << stage, 2 if stage and not index else 1, bottleneck)
                parts.append(block)
                channels = block.outputs
        self.blocks = nn.Sequential(*parts)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 3, height, width)."""
        value = self.pool(functional.relu(self.norm(self.conv(images))))
        value = self.blocks(value)
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(value, 1), 1))


def resnet_18(num_classes: int = 1000) -> ResNet:
    """11,689,512 parameters for 1000 classes."""
    return ResNet((2, 2, 2, 2), False, num_classes)


def resnet_50(num_classes: int = 1000) -> ResNet:
    """25,557,032 parameters for 1000 classes."""
    return ResNet((3, 4, 6, 3), True, num_classes)


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.outputs = 4 * width if bottleneck else width
        if bottleneck:
            parts = [*_conv(inputs, width, 1), nn.ReLU(), *_conv(width, width, 3, stride)]
            parts += [nn.ReLU(), *_conv(width, self.outputs, 1)]
        else:
            parts = [*_conv(inputs, width, 3, stride), nn.ReLU(), *_conv(width, width, 3)]
        self.residual = nn.Sequential(*parts)
        same = stride == 1 and inputs == self.outputs
        self.shortcut = nn.Sequential(*([] if same else _conv(inputs, self.outputs, 1, stride)))

    def forward(self, value: Tensor) -> Tensor:
        return functional.relu(self.residual(value) + self.shortcut(value))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]
