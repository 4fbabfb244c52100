# SPDX-License-Identifier: Apache-2.0
"""AlexNet for 32x32 images.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
networks", section 3.5, with the widths of Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks", a padded first convolution, and one dense layer at the end.
"""

from __future__ import annotations

from torch import nn


def alexnet(num_classes: int = 10) -> nn.Sequential:
    """Five convolutions and a dense layer; 2,472,266 parameters for 10 classes."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, num_classes),
    )
