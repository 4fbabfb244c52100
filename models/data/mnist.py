# SPDX-License-Identifier: Apache-2.0
"""MNIST as tensors: the official 60,000 and 10,000 digits."""

from __future__ import annotations

import torch

from models.data.splits import Part, Splits, hold_out
from models.mnist_cnn import mnist_images, mnist_labels


def mnist(validation: int = 5000, seed: int = 0) -> Splits:
    """Images float32 (n, 1, 28, 28) within 0 to 1, unshifted, so that empty pixels are 0.

    Args:
        validation: how many of the training digits are held out.
        seed: which ones.

    Raises:
        DataUnavailable: the package cannot be fetched.
    """
    return hold_out(_part("train"), _part("t10k"), validation, seed)


def _part(name: str) -> Part:
    return Part(torch.from_numpy(mnist_images(name).copy()), torch.from_numpy(mnist_labels(name)))
