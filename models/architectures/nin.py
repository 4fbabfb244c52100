# SPDX-License-Identifier: Apache-2.0
"""Network in network for 32x32 images: Lin, Chen and Yan 2014, "Network in network", section 4."""

from __future__ import annotations

from torch import nn


def nin(num_classes: int = 10) -> nn.Sequential:
    """Three blocks of a convolution and two 1x1 convolutions, averaged at the end; 966,986
    parameters for 10 classes."""
    return nn.Sequential(
        *_block(3, 5, (192, 160, 96)),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Dropout(0.5),
        *_block(96, 5, (192, 192, 192)),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Dropout(0.5),
        *_block(192, 3, (192, 192, num_classes)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _block(inputs: int, kernel: int, widths: tuple[int, int, int]) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for index, width in enumerate(widths):
        side = 1 if index else kernel
        parts += [nn.Conv2d(inputs, width, side, padding=side // 2), nn.ReLU()]
        inputs = width
    return parts
