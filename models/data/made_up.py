# SPDX-License-Identifier: Apache-2.0
"""Made-up images with classes, for trying a recipe without any data."""

from __future__ import annotations

import torch
from torch.nn import functional

from models.data.splits import Part, Splits


def made_up_images(
    count: int, channels: int, side: int, classes: int = 10, seed: int = 0
) -> Splits:
    """Each class is a smooth pattern within 0 to 1, moved by a pixel and covered by noise.

    Args:
        count: images to train with; a quarter as many validate, and as many test.
        channels: of the images.
        side: height and width, pixels.
        classes: how many.
        seed: of patterns and noise.
    """
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(classes, channels, 5, 5, generator=chance)
    patterns = functional.interpolate(coarse, size=(side + 2, side + 2), mode="bicubic")

    def part(number: int) -> Part:
        labels = torch.randint(0, classes, (number,), generator=chance)
        moves = torch.randint(0, 3, (number, 2), generator=chance).tolist()
        images = torch.stack(
            [
                patterns[label, :, top : top + side, left : left + side]
                for label, (top, left) in zip(labels.tolist(), moves, strict=True)
            ]
        )
        noise = 0.2 * torch.randn(images.shape, generator=chance)
        return Part((images + noise).clamp(0, 1), labels)

    return Splits(part(count), part(count // 4), part(count // 4))
