# SPDX-License-Identifier: Apache-2.0
"""VGG-16 for 32x32 images.

Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition",
table 1, configuration D; with batch normalisation and one dense layer, as is usual for CIFAR-10.
"""

from __future__ import annotations

from torch import nn

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg_16(num_classes: int = 10) -> nn.Sequential:
    """Thirteen 3x3 convolutions; 14,728,266 parameters for 10 classes."""
    parts: list[nn.Module] = []
    inputs = 3
    for stage in _STAGES:
        for width in stage:
            parts += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(inputs, num_classes))
