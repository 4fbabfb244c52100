# SPDX-License-Identifier: Apache-2.0
"""The entropy penalty: total bits, its multiplier, and what the minimum is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.train_tasks import Bowl, bowl_task, digits_net, digits_task
from toolkit.errors import InputError
from toolkit.nn import Latent, attach, auxiliary_loss, prior_per_tap
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


def test_training_of_latents_resumes_bit_for_bit(tmp_path: Path) -> None:
    def trainer(folder: Path | None = None, stop: int | None = None) -> Trainer:
        net = digits_net()
        for layer in (net[1], net[3]):
            shape = tuple(layer.weight.shape)
            attach(layer, "weight", Latent(shape, ema_decay=0.95))
        penalty = EntropyPenalty(1e-5, warmup=1)
        if stop is not None:
            step = penalty.after_step

            def stopping(trainer: Trainer) -> None:
                step(trainer)
                if trainer.step == stop:
                    raise KeyboardInterrupt

            penalty.after_step = stopping  # type: ignore[method-assign]
        options = {"optimizer": {"name": "adam", "rate": 0.005}, "checkpoint_every": 1}
        return Trainer(
            net, digits_task(), [penalty], epochs=3, folder=folder, progress=False, **options
        )

    whole = trainer()
    expected = whole.fit()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, 33).fit()
    again = trainer(tmp_path)
    assert again.fit(resume=True).history == expected.history
    for (name, first), second in zip(
        whole.model.state_dict().items(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), name


def test_the_quantiles_of_factorised_priors_are_fitted() -> None:
    net = digits_net()
    layer = net[1]
    shape = tuple(layer.weight.shape)
    attach(layer, "weight", Latent(shape, rate=prior_per_tap(shape)))
    before = float(auxiliary_loss(net).detach())
    options = {"optimizer": {"name": "adam", "rate": 0.02}, "progress": False}
    history = Trainer(net, digits_task(), [EntropyPenalty(1e-6)], epochs=4, **options).fit().history
    assert history[-1]["loss.auxiliary"] < history[0]["loss.auxiliary"] < before
