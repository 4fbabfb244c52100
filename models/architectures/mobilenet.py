# SPDX-License-Identifier: Apache-2.0
"""MobileNet: Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile
vision applications", table 1."""

from __future__ import annotations

from torch import nn

# Outputs and stride of each depthwise separable convolution.
_LAYERS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def mobilenet(
    num_classes: int = 1000, width: float = 1.0, small_images: bool = False
) -> nn.Sequential:
    """MobileNet; 4,231,976 parameters at width 1 for 1000 classes.

    Args:
        num_classes: how many logits.
        width: width multiplier (section 3.3); channels are rounded to multiples of 8.
        small_images: no stride in the first convolution and the first strided layer, for 32x32.
    """

    def scaled(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    channels = scaled(32)
    parts: list[nn.Module] = [*_conv(3, channels, 3, 1 if small_images else 2)]
    for index, (outputs, stride) in enumerate(_LAYERS):
        if small_images and index == 1:
            stride = 1
        parts += _conv(channels, channels, 3, stride, groups=channels)
        parts += _conv(channels, scaled(outputs), 1)
        channels = scaled(outputs)
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*parts)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
