# SPDX-License-Identifier: Apache-2.0
"""Convolutional networks for 32x32 images, written as a string of layers.

The notation of Urban et al. 2017, "Do deep convolutional nets really need to be deep and
convolutional?", which Polino, Pascanu and Alistarh 2018, "Model compression via distillation and
quantization", section 5.1, use for their teacher and students: `76c3*2` stands for two 3x3
convolutions with 76 filters, `mp` for 2x2 max pooling, `dp` for dropout and `1200fc` for a dense
layer. The last dense layer, which gives the logits, is added.
"""

from __future__ import annotations

import re

from torch import nn

TEACHER = "76c3*2-mp-dp-126c3*2-mp-dp-148c3*4-mp-dp-1200fc-dp-1200fc"
STUDENTS = {
    "1.0M": "75c5-mp-dp-50c5*2-mp-dp-25c5-dp-500fc-dp",
    "0.3M": "50c5-mp-dp-25c5*2-mp-dp-10c5-dp-400fc-dp",
    "0.1M": "25c5-mp-dp-10c5*2-mp-dp-5c5-dp-300fc-dp",
}
"""Students by the millions of parameters that the paper tells."""

_CONV = re.compile(r"(\d+)c(\d+)(?:\*(\d+))?")
_DENSE = re.compile(r"(\d+)fc")


def layer_string_net(
    layers: str,
    *,
    num_classes: int = 10,
    channels: int = 3,
    side: int = 32,
    batch_norm: bool = True,
    dropout: float = 0.2,
) -> nn.Sequential:
    """The network that ``layers`` describes; every convolution and dense layer has a ReLU.

    Args:
        layers: parts joined by hyphens: ``<filters>c<side of the kernel>[*<times>]`` (odd kernels,
            padded to keep the size), ``mp``, ``dp`` and ``<units>fc``.
        num_classes: how many logits.
        channels: channels of the images.
        side: height and width of the images.
        batch_norm: normalise after each convolution.
        dropout: probability of each ``dp``.

    Raises:
        ValueError: a part is none of these, or a convolution or pooling has no place.
    """
    parts: list[nn.Module] = []
    flat = False
    for part in layers.split("-"):
        conv, dense = _CONV.fullmatch(part), _DENSE.fullmatch(part)
        if conv and not flat and int(conv[2]) % 2:
            for _ in range(int(conv[3] or 1)):
                filters, kernel = int(conv[1]), int(conv[2])
                parts.append(nn.Conv2d(channels, filters, kernel, padding=kernel // 2))
                parts += [nn.BatchNorm2d(filters)] if batch_norm else []
                parts.append(nn.ReLU())
                channels = filters
        elif part == "mp" and not flat and side > 1:
            parts.append(nn.MaxPool2d(2))
            side //= 2
        elif part == "dp":
            parts.append(nn.Dropout(dropout))
        elif dense:
            parts += [] if flat else [nn.Flatten()]
            inputs = channels if flat else channels * side * side
            parts += [nn.Linear(inputs, int(dense[1])), nn.ReLU()]
            channels, flat = int(dense[1]), True
        else:
            raise ValueError(
                f"layers {layers!r}: {part!r} has no place there; expected parts like 76c3*2 with "
                "an odd kernel or mp before the first dense layer, dp, 1200fc"
            )
    parts += [] if flat else [nn.Flatten()]
    parts.append(nn.Linear(channels if flat else channels * side * side, num_classes))
    return nn.Sequential(*parts)
