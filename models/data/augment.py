# SPDX-License-Identifier: Apache-2.0
"""Random changes of image batches, float32 (batch, channels, height, width), on any device.

Each takes the generator that makes it repeatable; none draws from torch's global one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def shift(images: Tensor, pixels: int, generator: torch.Generator | None = None) -> Tensor:
    """Moves each image by up to ``pixels`` in each direction; what enters is 0.

    With images padded before, this is the random crop that is usual for CIFAR-10.
    """
    batch, _, height, width = images.shape
    moves = torch.randint(0, 2 * pixels + 1, (2, batch), generator=generator).to(images.device)
    padded = functional.pad(images, (pixels, pixels, pixels, pixels))
    rows = moves[0, :, None] + torch.arange(height, device=images.device)
    columns = moves[1, :, None] + torch.arange(width, device=images.device)
    index = torch.arange(batch, device=images.device)[:, None, None]
    # Channels behind the indexed axes, then back: one gather for all images.
    moved = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def flip(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirrors each image, left for right, with probability one half."""
    chosen = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, side: int, generator: torch.Generator | None = None) -> Tensor:
    """Cuts ``side`` × ``side`` pixels out of each image, at one place for the whole batch.

    Raises:
        ValueError: the images are smaller.
    """
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise ValueError(
            f"images have {height} × {width} pixels, expected at least {side} × {side}"
        )
    top = int(torch.randint(0, height - side + 1, (), generator=generator))
    left = int(torch.randint(0, width - side + 1, (), generator=generator))
    return images[..., top : top + side, left : left + side]


def affine(
    images: Tensor,
    degrees: float,
    scale: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turns each image by up to ``degrees`` and stretches it by up to the share ``scale``."""
    draws = (torch.rand(2, len(images), generator=generator) * 2 - 1).to(images.device)
    angle, factor = torch.deg2rad(draws[0] * degrees), 1 + draws[1] * scale
    cosine, sine, zero = angle.cos() / factor, angle.sin() / factor, torch.zeros_like(angle)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).reshape(-1, 2, 3)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def elastic(
    images: Tensor,
    pixels: float,
    smoothness: float = 4.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Bends each image: Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural
    networks applied to visual document analysis", section 2.

    Args:
        images: (batch, channels, height, width).
        pixels: deviation of the smoothed field of moves, in pixels.
        smoothness: deviation of the Gaussian that smooths it, in pixels.
        generator: source of chance.
    """
    batch, _, height, width = images.shape
    moves = torch.randn(2 * batch, 1, height, width, generator=generator).to(images.device)
    reach = int(3 * smoothness)
    taps = torch.arange(-reach, reach + 1, device=images.device) / smoothness
    taps = torch.exp(-taps.square() / 2)
    taps = taps / taps.sum()
    moves = functional.conv2d(moves, taps.reshape(1, 1, 1, -1), padding=(0, reach))
    moves = functional.conv2d(moves, taps.reshape(1, 1, -1, 1), padding=(reach, 0))
    moves = moves.reshape(batch, 2, height, width)
    moves = moves * (pixels / moves.std((2, 3), keepdim=True))
    unit = torch.eye(2, 3, device=images.device).expand(batch, 2, 3)
    grid = functional.affine_grid(unit, list(images.shape), align_corners=False)
    size = torch.tensor([2 / width, 2 / height], device=images.device)
    moved = grid + moves.permute(0, 2, 3, 1) * size
    return functional.grid_sample(images, moved, align_corners=False)


class Augment(nn.Module):
    """Shifts and flips of the training of small images.

    Args:
        pixels: longest shift.
        mirror: whether to flip.
    """

    def __init__(self, pixels: int, mirror: bool = False) -> None:
        super().__init__()
        self.pixels, self.mirror = pixels, mirror

    def forward(self, images: Tensor) -> Tensor:
        """Images of the same shape, from torch's global chance, which a training loop seeds."""
        images = shift(images, self.pixels) if self.pixels else images
        return flip(images) if self.mirror else images
