# SPDX-License-Identifier: Apache-2.0
"""Latents go to zero where their bits are worth more than the loss, by the noise of gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train_tasks import digits_net, digits_task
from toolkit.errors import InputError
from toolkit.nn import AffineDecoder, Latent, attach, compressed_bytes, originals
from toolkit.train import EntropyPenalty, LatentPruning, Task, TensorLoader, Trainer

STEP, BITS, BATCH = 0.5, 3.0, 8


class BitsPerStep(nn.Module):
    """A rate of three bits for each step from zero."""

    def forward(self, positions: Tensor) -> Tensor:
        return BITS * positions.abs().sum()


class Slope(nn.Module):
    """A loss whose gradient is the sample: its Fisher information is the sample's variance."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights))
        decoder = AffineDecoder(STEP)
        attach(self, "weight", Latent((len(weights),), decoder, rate=BitsPerStep()))

    def forward(self, batch: Tensor) -> Tensor:
        return batch @ self.weight


def pruned(weights: list[float], deviations: list[float], multiplier: float) -> Tensor:
    """The latents, in steps, after one decision and no other training that would count."""
    chance = torch.Generator().manual_seed(0)
    samples = torch.randn(40 * BATCH, len(weights), generator=chance) * torch.tensor(deviations)
    samples += 5.0  # the mean of gradients is no part of the Fisher information
    data = TensorLoader(samples, batch_size=BATCH)

    def value(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs

    task = Task(data, data.first(BATCH), value, value, higher_is_better=False)
    model = Slope(weights)
    penalty = EntropyPenalty(multiplier)
    method = LatentPruning(39.5 / 40, every=39, decay=0.97)
    options: dict[str, Any] = {"optimizer": {"rate": 1e-9, "momentum": 0.0}, "progress": False}
    Trainer(model, task, [penalty, method], epochs=1, **options).fit()
    ((_, original, _),) = originals(model)
    return original.detach() / STEP


@pytest.mark.parametrize("multiplier", [1e-3, 1e-2, 1e-1])
def test_latents_go_where_bits_are_worth_more(multiplier: float) -> None:
    """F s^2 (p^2 - (p - k)^2) / 2 < multiplier * bits, with F the variance."""
    weights, deviations = [0.3, -0.7, 0.7, 1.3], [0.1, 0.2, 2.0, 0.05]
    found = pruned(weights, deviations, multiplier)
    for weight, deviation, position in zip(weights, deviations, found.tolist(), strict=True):
        p = abs(weight) / STEP
        k = round(p)
        cost = deviation**2 * STEP**2 * (p**2 - (p - k) ** 2) / 2
        # Farther from the border than the error of a variance of forty batches.
        assert not 0.4 < cost / (multiplier * BITS * k) < 2.5
        expected = 0 if cost < multiplier * BITS * k else p
        assert abs(position) == pytest.approx(expected, abs=1e-4)
        assert position == 0 or (position > 0) == (weight > 0)


def digits_trainer(multiplier: float, folder: Path | None = None) -> Trainer:
    net = digits_net()
    for layer in (net[1], net[3]):
        shape = tuple(layer.weight.shape)
        attach(layer, "weight", Latent(shape, AffineDecoder(relative_step=0.5)))
    penalty = EntropyPenalty(multiplier, warmup=4)
    return Trainer(
        net,
        digits_task(),
        [penalty, LatentPruning(8, start=4, every=10)],
        epochs=10,
        optimizer={"name": "adam", "rate": 2e-3},
        folder=folder,
        progress=False,
    )


def test_it_makes_a_network_smaller_than_the_penalty_alone_at_its_accuracy() -> None:
    both = digits_trainer(3e-6)
    alone = digits_trainer(3e-6)
    alone.callbacks = alone.callbacks[:1]
    metrics = [trainer.fit().metric for trainer in (both, alone)]
    assert metrics[0] > metrics[1] - 0.02
    assert compressed_bytes(both.model) < 0.8 * compressed_bytes(alone.model)
    held = both.callbacks[1].zeros
    for name, original, _ in originals(both.model):
        assert bool((original[held[name]] == 0).all()) and held[name].float().mean() > 0.1
    assert 0.3 < both.history[-1]["zeros"] < 1


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = digits_trainer(1e-5)
    whole.fit()
    first = digits_trainer(1e-5, tmp_path)
    step = first.callbacks[1].after_step

    def stopping(trainer: Trainer) -> None:
        step(trainer)
        if trainer.step == 130:
            raise KeyboardInterrupt

    first.callbacks[1].after_step = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = digits_trainer(1e-5, tmp_path)
    second.fit(resume=True)
    for one, other in zip(originals(whole.model), originals(second.model), strict=True):
        assert torch.equal(one[1], other[1])


def test_what_cannot_be_pruned_is_told() -> None:
    for options, said in (
        ({"end": 1, "start": 1}, "expected 0 <= start < end, found 1 and 1"),
        ({"end": 1, "every": 0}, "every: expected 1 or more, found 0"),
        ({"end": 1, "decay": 1.0}, "decay: expected 0 to below 1, found 1.0"),
    ):
        with pytest.raises(InputError, match=said):
            LatentPruning(**options)  # type: ignore[arg-type]
    method = [EntropyPenalty(1e-5, rate=lambda model: torch.zeros(())), LatentPruning(1)]
    with pytest.raises(InputError, match="goes with an entropy penalty, and there is none"):
        Trainer(digits_net(), digits_task(), method[1:], epochs=2, progress=False).fit()
    with pytest.raises(InputError, match="no weight of the model has a latent"):
        Trainer(digits_net(), digits_task(), method, epochs=2, progress=False).fit()
    net = digits_net()
    attach(net[1], "weight", Latent((32, 64), AffineDecoder(0.1, offset=True)))
    with pytest.raises(InputError, match=r"1.weight: its decoder has an offset"):
        Trainer(net, digits_task(), method, epochs=2, progress=False).fit()
