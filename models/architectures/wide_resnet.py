# SPDX-License-Identifier: Apache-2.0
"""Wide ResNet for 32x32 images: Zagoruyko and Komodakis 2016, "Wide residual networks"."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class WideResNet(nn.Module):
    """WRN-``depth``-``width``; normalisation and ReLU stand before each convolution.

    Args:
        depth: 6n + 4 layers; WRN-28-10 has 36,479,194 parameters, WRN-16-4 2,748,890.
        width: factor of the widths 16, 32 and 64.
        num_classes: how many logits.
        dropout: probability between the two convolutions of a block.

    Raises:
        ValueError: the depth is not 6n + 4.
    """

    def __init__(
        self, depth: int = 28, width: int = 10, num_classes: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth is {depth}, expected 6 n + 4: 16, 22, 28, 40")
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        channels, blocks = 16, []
        for stage in range(3):
            for index in range((depth - 4) // 6):
                outputs = 16 * width << stage
                stride = 2 if stage and not index else 1
                blocks.append(_Block(channels, outputs, stride, dropout))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 3, height, width)."""
        value = functional.relu(self.norm(self.blocks(self.conv(images))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(value, 1), 1))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, value: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(value))
        # A block that changes the width takes its shortcut behind the first normalisation.
        shortcut = value if self.shortcut is None else self.shortcut(inner)
        inner = self.dropout(functional.relu(self.norm2(self.conv1(inner))))
        return self.conv2(inner) + shortcut
