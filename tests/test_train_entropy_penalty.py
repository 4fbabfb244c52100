# SPDX-License-Identifier: Apache-2.0
"""The entropy penalty: total bits, its multiplier, and what the minimum is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.train_tasks import Bowl, bowl_task
from toolkit.errors import InputError
from toolkit.train import EntropyPenalty, Trainer


def magnitude_bits(model: nn.Module) -> torch.Tensor:
    """A rate whose minimum with a bowl is known: bits are the squares of weights."""
    return sum((p.square().sum() for p in model.parameters()), torch.zeros(()))


def fitted(multiplier: float, warmup: float = 0.0) -> tuple[np.ndarray, list[dict[str, float]]]:
    model = Bowl([0.0, 0.0], [3.0, -1.0], [1.0, 4.0])
    penalty = EntropyPenalty(multiplier, rate=magnitude_bits, warmup=warmup)
    options = {"optimizer": {"rate": 0.1, "momentum": 0.0}, "progress": False}
    result = Trainer(model, bowl_task(20), [penalty], epochs=10, **options).fit()
    return model.weight.detach().numpy(), result.history


@pytest.mark.parametrize("multiplier", [0.0, 0.05, 0.5])
def test_the_minimum_balances_loss_and_bits(multiplier: float) -> None:
    """a (w - t) + 2 lambda w = 0."""
    weight, history = fitted(multiplier)
    curve, target = np.array([1.0, 4.0]), np.array([3.0, -1.0])
    np.testing.assert_allclose(weight, curve * target / (curve + 2 * multiplier), rtol=1e-4)
    assert history[-1]["bits"] == pytest.approx(float((weight**2).sum()), rel=1e-4)
    assert history[-1]["loss.rate"] == pytest.approx(multiplier * history[-1]["bits"], rel=1e-3)


def test_while_the_penalty_rises_nothing_is_selected() -> None:
    _, history = fitted(0.5, warmup=4)
    rates = [record["loss.rate"] / record["bits"] for record in history]
    assert rates[0] < rates[1] < rates[3] and rates[5] == pytest.approx(0.5, rel=1e-3)
    model = Bowl([0.0], [1.0])
    penalty = EntropyPenalty(0.1, rate=magnitude_bits, warmup=5)
    result = Trainer(model, bowl_task(), [penalty], epochs=3, progress=False).fit()
    assert result.best is None and np.isnan(result.metric)


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="multiplier: expected 0 or more, found -1"):
        EntropyPenalty(-1)
