# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 as tensors: the official 50,000 and 10,000 images."""

from __future__ import annotations

import numpy as np
import torch

from models.cifar_cnn import cifar10_images, cifar10_test_labels, cifar10_train_labels
from models.data.splits import Part, Splits, hold_out

# Mean and deviation of each channel over the training images, of pixels within 0 to 1.
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def cifar10(validation: int = 5000, seed: int = 0) -> Splits:
    """Images float32 (n, 3, 32, 32), each channel with mean 0 and deviation 1.

    Args:
        validation: how many of the training images are held out.
        seed: which ones.

    Raises:
        DataUnavailable: the package cannot be fetched.
    """
    images = np.concatenate([cifar10_images(f"data_batch_{batch}") for batch in range(1, 6)])
    train = Part(_scaled(images), torch.from_numpy(cifar10_train_labels()))
    test = Part(_scaled(cifar10_images("test_batch")), torch.from_numpy(cifar10_test_labels()))
    return hold_out(train, test, validation, seed)


def _scaled(images: np.ndarray) -> torch.Tensor:
    mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    return (torch.from_numpy(images) / 255).sub_(mean).div_(deviation)
