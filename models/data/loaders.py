# SPDX-License-Identifier: Apache-2.0
"""Loaders of labelled images for `toolkit.train`."""

from __future__ import annotations

from models.data.splits import Splits
from toolkit.train import Task, TensorLoader, classification
from toolkit.train.tensor_loader import Augment

_EVALUATED = 500  # images at once


def augmented_task(splits: Splits, batch_size: int, augment: Augment, seed: int = 0) -> Task:
    """Classification of images that are changed at random, to train and to validate with.

    Args:
        splits: The test part is not looked at.
        batch_size: Images of a step; what is left over at the end of an epoch waits.
        augment: Changes a batch; not in validation.
        seed: Of order and changes.
    """
    train, validation = splits.train, splits.validation
    return classification(
        TensorLoader(
            train.inputs,
            train.labels,
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            seed=seed,
            augment=augment,
        ),
        TensorLoader(validation.inputs, validation.labels, batch_size=_EVALUATED),
    )
