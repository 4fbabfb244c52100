# SPDX-License-Identifier: Apache-2.0
"""MNIST and CIFAR-10 as their loaders give them, against known figures."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="data are torch tensors")

from models.data.cifar10 import cifar10  # noqa: E402
from models.data.mnist import mnist  # noqa: E402
from models.data.splits import Splits  # noqa: E402
from models.fetch import DataUnavailable  # noqa: E402


def loaded(name: str) -> Splits:
    try:
        return {"mnist": mnist, "cifar10": cifar10}[name]()
    except DataUnavailable as error:
        pytest.skip(str(error))


def test_mnist_has_the_official_digits() -> None:
    splits = loaded("mnist")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [55_000, 5_000, 10_000]
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert labels.bincount().tolist() == counts
    assert splits.test.labels.bincount().tolist()[:3] == [980, 1135, 1032]
    assert splits.train.inputs.shape == (55_000, 1, 28, 28)
    assert (float(splits.train.inputs.min()), float(splits.train.inputs.max())) == (0.0, 1.0)


def test_cifar10_has_the_official_images() -> None:
    splits = loaded("cifar10")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [45_000, 5_000, 10_000]
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    assert labels.bincount().tolist() == [5000] * 10
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    pixels = torch.cat([splits.train.inputs, splits.validation.inputs])
    assert pixels.shape == (50_000, 3, 32, 32)
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-3)
    assert torch.allclose(pixels.std((0, 2, 3)), torch.ones(3), atol=2e-3)
