# SPDX-License-Identifier: Apache-2.0
"""Small tasks for tests of training: digits made by numpy, and a quadratic bowl."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from toolkit.train import Task, TensorLoader, classification

SEGMENTS = (0x3F, 0x06, 0x5B, 0x4F, 0x66, 0x6D, 0x7D, 0x07, 0x7F, 0x6F)
"""Which of the seven segments each digit lights."""


def digit_images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Seven-segment digits of 8 x 8 pixels, moved and noisy: float32 [count, 1, 8, 8], int64."""
    generator = np.random.default_rng(seed)
    bars = [(0, 1, 0, 4), (1, 3, 3, 4), (3, 6, 3, 4), (5, 6, 0, 4), (3, 6, 0, 1), (1, 3, 0, 1)]
    bars.append((2, 3, 0, 4))
    glyphs = np.zeros((10, 6, 4), np.float32)
    for digit, segments in enumerate(SEGMENTS):
        for bit, (top, bottom, left, right) in enumerate(bars):
            if segments >> bit & 1:
                glyphs[digit, top:bottom, left:right] = 1
    labels = generator.integers(0, 10, count)
    images = generator.normal(0, 0.15, (count, 8, 8)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        y, x = generator.integers(0, 2), generator.integers(1, 3)
        image[y : y + 6, x : x + 4] += glyphs[label]
    return torch.from_numpy(images[:, None]), torch.from_numpy(labels)


def digits_task(batch_size: int = 50, train: int = 1000, seed: int = 0) -> Task:
    """Digits with a validation and a test set."""
    loaders = [
        TensorLoader(
            *digit_images(count, part), batch_size=batch_size, shuffle=part == 0, seed=seed
        )
        for part, count in ((0, train), (1, 300), (2, 300))
    ]
    return classification(*loaders)


def digits_net(seed: int = 0, hidden: int = 32) -> nn.Sequential:
    """A dense network for the digits."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


class Bowl(nn.Module):
    """A vector of weights whose loss is sum(curvature * (w - target)^2) / 2."""

    def __init__(self, start: Any, target: Any, curvature: Any = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(np.asarray(start, np.float32)))
        self.register_buffer("target", torch.tensor(np.asarray(target, np.float32)))
        size = self.weight.numel()
        curve = np.broadcast_to(np.asarray(curvature, np.float32), (size,)).copy()
        self.register_buffer("curvature", torch.tensor(curve))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        loss = 0.5 * (self.curvature * (self.weight - self.target).square()).sum()
        return loss.expand(len(batch))


def bowl_task(steps: int = 20) -> Task:
    """A task whose loss is the bowl's, ``steps`` steps an epoch."""
    data = TensorLoader(torch.zeros(steps, 1), batch_size=1)

    def value(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs

    return Task(data, data.first(1), value, value, higher_is_better=False)


def digit_parts() -> dict[str, Any]:
    """Data as a recipe's function gives them: parts of tensors."""
    return {
        name: digit_images(count, place)
        for place, (name, count) in enumerate((("train", 1000), ("validation", 300), ("test", 300)))
    }


def wide_parts() -> dict[str, Any]:
    """Data of more inputs than `digits_net` has."""
    parts = digit_parts()
    return {
        name: (torch.cat([inputs, inputs], -1), labels) for name, (inputs, labels) in parts.items()
    }
