# SPDX-License-Identifier: Apache-2.0
"""ResNet-20, 32, 56, ... for 32x32 images.

He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition", section 4.2; shortcuts
between sizes skip every other pixel and pad channels with zeros (option A), without parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CifarResNet(nn.Module):
    """ResNet of ``depth`` = 6n + 2 layers.

    Args:
        depth: number of layers with weights: 20, 32, 44, 56, 110 have 269,722, 464,154, 658,586,
            853,018, 1,727,962 parameters at width 1 and 10 classes.
        num_classes: how many logits.
        width: factor of all widths; 4 gives the ResNet-20-4 of Oktay et al. 2020.

    Raises:
        ValueError: the depth is not 6n + 2.
    """

    def __init__(self, depth: int = 20, num_classes: int = 10, width: int = 1) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth is {depth}, expected 6 n + 2: 20, 32, 44, 56, 110")
        channels = 16 * width
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        blocks = []
        for stage in range(3):
            for index in range((depth - 2) // 6):
                outputs = 16 * width << stage
                blocks.append(_Block(channels, outputs, 2 if stage and not index else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 3, height, width)."""
        value = self.blocks(functional.relu(self.norm(self.conv(images))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(value, 1), 1))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, value: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(value)))
        inner = self.norm2(self.conv2(inner))
        if self.stride > 1:
            value = value[:, :, :: self.stride, :: self.stride]
        if self.added:
            value = functional.pad(value, (0, 0, 0, 0, self.added // 2, self.added // 2))
        return functional.relu(inner + value)
