# SPDX-License-Identifier: Apache-2.0
"""The rate of rows and columns: its size, its slopes, and that it gives up whole units."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import toolkit.nn as tnn  # noqa: E402

torch.set_num_threads(1)


def sparse(shape: tuple[int, ...], fullness: float = 0.4) -> torch.Tensor:
    """Integers, of which few are not zero, in rows and columns of different density."""
    chance = torch.Generator().manual_seed(len(shape))
    density = torch.full(shape, fullness)
    for axis, length in enumerate(shape[:2]):
        factors = torch.rand(length, generator=chance) ** 3
        density *= factors.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    used = torch.rand(shape, generator=chance) < density
    size = 1 + (torch.rand(shape, generator=chance) < 0.3).float()
    sign = torch.where(torch.rand(shape, generator=chance) < 0.5, -1.0, 1.0)
    return used * size * sign


@pytest.mark.parametrize("shape", [(300, 400), (100, 60, 5, 5)], ids=str)
def test_it_is_near_the_bytes_that_are_written(shape: tuple[int, ...]) -> None:
    """A quarter below at most: it tells no bits for densities, and knows neither headers nor
    contexts."""
    symbols = sparse(shape)
    layer = nn.Module()
    layer.weight = nn.Parameter(symbols * 0.5)
    form = tnn.Latent(shape, tnn.AffineDecoder(0.5), rate=tnn.DensityRate(shape))
    tnn.attach(layer, "weight", form)
    estimate = float(form.rate(tnn.original_of(layer, form)).detach())
    assert 0.75 < estimate / (8 * tnn.compressed_bytes(layer)) < 1.05
    # Rows and columns count: the same symbols elsewhere take more.
    shuffled = symbols.flatten()[torch.randperm(symbols.numel())].reshape(shape)
    assert float(tnn.DensityRate(shape)(shuffled)) > 1.1 * estimate


def test_the_gradient_is_the_difference_of_code_lengths() -> None:
    rate = tnn.DensityRate((300, 400), least_slope=0.0)
    symbols = sparse((300, 400))
    rate(symbols)
    rate.eval()
    start = symbols.clone().requires_grad_()
    rate(start + 0.2).backward()
    assert start.grad is not None
    for row, column in ((0, 0), (17, 300), (299, 5)):
        bits = []
        for value in (0.0, 1.0, 2.0):
            other = symbols.clone()
            other[row, column] = value
            bits.append(float(rate(other)))
        moved = symbols.clone()
        moved[row, column] = 0.4
        place = moved.requires_grad_()
        rate(place).backward()
        assert place.grad is not None
        assert float(place.grad[row, column]) == pytest.approx(bits[1] - bits[0], abs=0.1)
    assert float(rate.more) == pytest.approx(0.23, abs=0.03)  # 0.3 of 1.3 steps


def test_a_dense_tensor_is_drawn_to_zero_all_the_same() -> None:
    positions = torch.full((20, 30), 0.6, requires_grad=True)
    tnn.DensityRate((20, 30), least_slope=2.0)(positions).backward()
    assert positions.grad is not None
    assert bool((positions.grad >= 2.0).all())


def test_emptier_rows_columns_and_places_are_dearer() -> None:
    symbols = torch.ones(8, 6 * 4)
    symbols[0, 1:] = 0
    symbols[1:, 4:8] = 0  # the second channel of four places
    rate = tnn.DensityRate((8, 24), places=4)
    positions = (symbols * 0.9).requires_grad_()
    rate(positions).backward()
    assert positions.grad is not None
    slopes = positions.grad
    assert float(slopes[0, 0]) > float(slopes[3, 0])
    empty = torch.where(symbols == 0, 0.2, 0.9).requires_grad_()
    rate(empty).backward()
    assert empty.grad is not None
    assert float(empty.grad[3, 5]) > float(empty.grad[3, 1])


def test_a_rate_goes_on_from_its_state() -> None:
    first = tnn.DensityRate((30, 40), interval=3)
    for step in range(5):
        first(sparse((30, 40), 0.2 + 0.1 * step))
    second = tnn.DensityRate((30, 40), interval=3)
    second.load_state_dict(first.state_dict())
    for step in range(4):
        symbols = sparse((30, 40), 0.9 - 0.1 * step)
        assert torch.equal(first(symbols), second(symbols))
