# SPDX-License-Identifier: Apache-2.0
"""Units that are given up: layers become smaller, outputs stay, latents go along."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import toolkit.nn as tnn  # noqa: E402
from passes.errors import SchemeError  # noqa: E402

torch.set_num_threads(1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3),
        nn.Flatten(),
        nn.Linear(5 * 16, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def emptied(model: nn.Sequential) -> nn.Sequential:
    """A filter without inputs, one without outputs, one with a bias only, and a unit that lives on
    a dead filter alone."""
    with torch.no_grad():
        for layer in (model[0], model[3], model[5]):
            layer.bias.zero_()
        model[0].weight[2] = 0
        model[3].weight[:, 4] = 0
        model[0].weight[1] = 0
        model[0].bias[1] = 0.7
        model[3].weight[3] = 0
        model[5].weight[7] = 0
        model[5].weight[7, 3 * 16 : 4 * 16] = 1.0
        model[7].weight[:, 9] = 0
    return model


def test_dead_units_are_found_through_the_chain() -> None:
    alive = tnn.alive_units(emptied(network()))
    assert alive["0"].tolist() == [True, True, False, True, False, True]
    assert alive["3"].tolist() == [True, True, True, False, True]
    assert [i for i, value in enumerate(alive["5"].tolist()) if not value] == [7, 9]


@pytest.mark.parametrize("latent", [False, True])
def test_outputs_stay_when_dead_units_go(latent: bool) -> None:
    model = emptied(network())
    images = torch.rand(4, 1, 14, 14)
    if latent:
        for index in (0, 3, 5, 7):
            shape = tuple(model[index].weight.shape)
            places = 16 if index == 5 else 1
            decoder = tnn.AffineDecoder(0.05, units="step")
            rate = tnn.DensityRate(shape, places=places)
            tnn.attach(model[index], "weight", tnn.Latent(shape, decoder, rate=rate))
    model.eval()
    with torch.no_grad():
        before = model(images)
        size = tnn.compressed_bytes(model)
        latents = [original.detach().clone() for _, original, _ in tnn.originals(model)]
        tnn.keep_units(model, tnn.alive_units(model))
        after = model(images)
    assert [model[i].weight.shape[0] for i in (0, 3, 5, 7)] == [4, 4, 10, 3]
    assert model[5].in_features == 4 * 16 and model[3].in_channels == 4
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    assert tnn.compressed_bytes(model) < size
    if latent:  # what is between integers is kept, so that training can go on
        first = next(iter(tnn.originals(model)))[1]
        assert torch.equal(first, latents[0][[0, 1, 3, 5]])
        tnn.rate_bits(model).backward()
        assert first.grad is not None


def test_the_strongest_units_are_kept() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[4] *= 100
        model[3].weight[:, 2] *= 100
        model[0].weight[0] = 0
    kept = tnn.strongest_units(model, {"0": 2, "5": 7})
    assert kept["0"].nonzero().flatten().tolist() == [2, 4]
    assert int(kept["5"].sum()) == 7
    tnn.keep_units(model, kept)
    assert model(torch.rand(2, 1, 14, 14)).shape == (2, 3)


def test_what_has_no_such_units_is_refused() -> None:
    with pytest.raises(SchemeError, match="9: no layer before the last one that has 2 units"):
        tnn.strongest_units(network(), {"9": 2})
    with pytest.raises(SchemeError, match="0: no layer before the last one with 3 units"):
        tnn.keep_units(network(), {"0": torch.ones(3, dtype=torch.bool)})
    model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(1), nn.Linear(4, 2))
    with pytest.raises(SchemeError, match="1: a Softmax cannot lose units"):
        tnn.alive_units(model)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    tnn.attach(model[0], "weight", tnn.Masked((4, 4)))
    with pytest.raises(SchemeError, match="a Masked cannot lose units"):
        tnn.keep_units(model, {"0": torch.tensor([True, True, False, True])})
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    tnn.attach(model[0], "weight", tnn.Latent((4, 4), tnn.AffineDecoder(0.1, axis=0, size=4)))
    with pytest.raises(SchemeError, match="of one shape only"):
        tnn.keep_units(model, {"0": torch.tensor([True, True, False, True])})
