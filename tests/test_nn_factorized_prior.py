# SPDX-License-Identifier: Apache-2.0
"""The learned prior: a distribution, learned, with quantiles that follow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import toolkit.nn as tnn
from passes.errors import SchemeError

torch.set_num_threads(1)


def trained(values: torch.Tensor, prior: tnn.FactorizedPrior, steps: int = 300) -> None:
    """By the rate, and by the auxiliary loss beside it."""
    optimiser = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        (prior(values) / values.numel() + prior.auxiliary_loss()).backward()
        optimiser.step()


def test_it_is_a_distribution() -> None:
    torch.manual_seed(0)
    prior = tnn.FactorizedPrior(init_scale=3.0)
    for parameter in prior.factors:
        nn.init.uniform_(parameter, -2, 2)
    integers = torch.arange(-2000.0, 2001.0)
    with torch.no_grad():
        logits = prior.logits(integers.reshape(1, 1, -1)).reshape(-1)
        assert (logits.diff() >= 0).all()
        mass = sum(2 ** -float(prior.bits_of(torch.tensor([k]))) for k in range(-200, 201))
    assert mass == pytest.approx(1.0, abs=0.01)


def test_it_learns_the_entropy_of_integers() -> None:
    torch.manual_seed(0)
    values = torch.from_numpy(np.random.default_rng(0).laplace(size=4000) * 4).float()
    prior = tnn.FactorizedPrior()
    trained(values, prior)
    prior.eval()
    symbols, counts = np.unique(values.round().numpy(), return_counts=True)
    shares = counts / counts.sum()
    entropy = -np.sum(counts * np.log2(shares))
    assert len(symbols) > 20
    assert float(prior(values).detach()) == pytest.approx(entropy, rel=0.03)


def test_quantiles_follow_the_prior() -> None:
    """Their loss is optimised, and moves them only."""
    torch.manual_seed(0)
    values = torch.from_numpy(np.random.default_rng(0).normal(2.0, 5.0, 4000)).float()
    prior = tnn.FactorizedPrior(tail_mass=0.02)
    trained(values, prior, 600)
    low, median, high = prior.quantiles[0].tolist()
    assert median == pytest.approx(2.0, abs=0.5)
    assert low == pytest.approx(2 - 5 * 2.33, abs=2.5) and high == pytest.approx(
        2 + 5 * 2.33, abs=2.5
    )
    prior.zero_grad()
    prior.auxiliary_loss().backward()
    touched = {name for name, p in prior.named_parameters() if p.grad is not None}
    assert touched == {"quantiles"}


def test_a_channel_for_each_tap() -> None:
    torch.manual_seed(0)
    shape = (60, 20, 2, 2)
    prior = tnn.prior_per_tap(shape)
    assert prior.channels == 4
    widths = torch.tensor([0.3, 2.0, 5.0, 10.0]).reshape(1, 1, 2, 2)
    values = torch.randn(shape) * widths
    trained(values, prior, 200)
    prior.eval()
    entropy = 0.0
    for tap in values.reshape(-1, 4).round().numpy().T:
        counts = np.unique(tap, return_counts=True)[1]
        entropy -= float(np.sum(counts * np.log2(counts / counts.sum())))
    assert float(prior(values).detach()) == pytest.approx(entropy, rel=0.1)
    with pytest.raises(SchemeError, match="4 channels do not divide"):
        prior(torch.zeros(3, 5))


def test_the_noise_form_is_not_the_rate_where_weights_are_sparse() -> None:
    """Why the codec's own rate is the default."""
    torch.manual_seed(0)
    values = torch.from_numpy(np.random.default_rng(0).laplace(size=20_000) * 0.12).float()
    prior = tnn.FactorizedPrior(init_scale=2.0)
    trained(values, prior, 300)
    noisy = float(prior(values).detach())
    prior.eval()
    whole = float(prior(values).detach())
    assert noisy > 1.3 * whole
    codec = tnn.CodecRate((100, 200))
    table = values.reshape(100, 200)
    training = float(codec(table))
    codec.eval()
    assert float(codec(table)) == pytest.approx(training, rel=0.02)


def test_the_auxiliary_loss_of_a_model() -> None:
    layer = nn.Linear(4, 3)
    assert float(tnn.auxiliary_loss(layer)) == 0
    tnn.attach(layer, "weight", tnn.Latent((3, 4), rate=tnn.FactorizedPrior()))
    assert float(tnn.auxiliary_loss(layer).detach()) > 0
