# SPDX-License-Identifier: Apache-2.0
"""Tucker-2: the error of the iteration never rises, ranks keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import FitContext, LowRank, Tucker, TuckerParameters, Uniform
from passes.schemes.tucker import leading_basis, num_elements, orthogonal_iteration
from tests.passes_models import normal


def relative_error(weight: np.ndarray, fitted: TuckerParameters) -> float:
    difference = weight.astype(np.float64) - fitted.decode()
    return float(np.sum(difference**2) / np.sum(weight.astype(np.float64) ** 2))


@pytest.mark.parametrize("ranks", [(1, 1), (3, 5), (6, 2), (10, 8)])
def test_the_error_never_rises(ranks: tuple[int, int]) -> None:
    weight = normal(10, 8, 3, 3)
    tensor = weight.astype(np.float64).reshape(10, 8, 9)
    bases, errors = orthogonal_iteration(tensor, leading_basis(tensor, 1, ranks[1]), ranks[0], 30)
    assert all(b <= a + 1e-9 for a, b in zip(errors, errors[1:], strict=False))
    for basis in bases:
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    found = Tucker(ranks=ranks, iterations=30).fit(weight)
    assert found.ranks == ranks
    assert relative_error(weight, found) * np.sum(tensor**2) == pytest.approx(
        errors[-1], rel=1e-4, abs=1e-6
    )


def test_iterating_is_no_worse_than_the_start_and_than_other_subspaces() -> None:
    weight, rng = normal(10, 8, 3, 3), np.random.default_rng(1)
    tensor = weight.astype(np.float64).reshape(10, 8, 9)
    found = relative_error(weight, Tucker(ranks=(4, 3)).fit(weight)) * np.sum(tensor**2)
    assert found <= relative_error(weight, Tucker(ranks=(4, 3), iterations=0).fit(weight)) * np.sum(
        tensor**2
    ) * (1 + 1e-6)
    for _ in range(20):
        a = np.linalg.qr(rng.standard_normal((10, 4)))[0]
        b = np.linalg.qr(rng.standard_normal((8, 3)))[0]
        core = np.einsum("nmt,na,mb->abt", tensor, a, b)
        assert found < np.sum(tensor**2) - np.sum(core**2)


def test_a_matrix_is_as_low_rank() -> None:
    weight = normal(10, 8)
    low_rank = LowRank(rank=3).fit(weight).decode()
    np.testing.assert_allclose(Tucker(ranks=(3, 3)).fit(weight).decode(), low_rank, atol=1e-5)


def test_a_weight_of_the_ranks_comes_back() -> None:
    core, a, b = normal(3, 2, 3, 3), normal(10, 3, seed=1), normal(8, 2, seed=2)
    weight = np.einsum("abij,na,mb->nmij", core, a, b).astype(np.float32)
    found = Tucker(energy=1.0).fit(weight)
    assert relative_error(weight, found) < 1e-10
    assert relative_error(weight, Tucker(ranks=(3, 2)).fit(weight)) < 1e-10
    assert Tucker(ranks=(3, 2)).fit(found.decode()).ranks == (3, 2)


@pytest.mark.parametrize("energy", [0.0, 0.5, 0.9, 0.99])
def test_the_energy_is_kept(energy: float) -> None:
    weight = normal(10, 8, 3, 3)
    assert relative_error(weight, Tucker(energy=energy).fit(weight)) <= 1 - energy + 1e-6


@pytest.mark.parametrize("budget", [0, 30, 100, 300, 10**6])
def test_the_budget_is_spent_on_the_best_pair(budget: int) -> None:
    """Best by the energy that the cut rotated tensor keeps, against every pair."""
    weight = normal(10, 8, 3, 3)
    tensor = weight.astype(np.float64).reshape(10, 8, 9)
    rotated = np.einsum(
        "nmt,na,mb->abt", tensor, leading_basis(tensor, 0), leading_basis(tensor, 1)
    )
    pairs = [(a, b) for a in range(11) for b in range(9)]
    pairs = [pair for pair in pairs if num_elements(weight.shape, pair) <= budget]
    best = max(float(np.sum(rotated[:a, :b] ** 2)) for a, b in pairs)
    a, b = Tucker(budget=budget).fit(weight).ranks
    assert num_elements(weight.shape, (a, b)) <= budget
    assert np.sum(rotated[:a, :b] ** 2) == pytest.approx(best)


def test_quantised_factors_and_masks() -> None:
    weight = normal(10, 8, 3, 3)
    mask = np.ones(weight.shape, bool)
    mask[4], mask[:, 2] = False, False
    scheme = Tucker(energy=0.95, inner=Uniform(bits=8))
    found = scheme.fit(weight, FitContext(mask=mask))
    assert not found.decode()[~mask].any()
    assert [part.shape[0] for part in found.children()] == [10, found.ranks[0], found.ranks[1]]
    assert relative_error(weight * mask, found) < 0.07
    mask[0, 0, 0, 0] = False
    with pytest.raises(SchemeError, match="whole channels"):
        scheme.fit(weight, FitContext(mask=mask))


def test_degenerate_weights() -> None:
    zeros = np.zeros((4, 3, 2, 2), np.float32)
    for scheme in (Tucker(ranks=(2, 2)), Tucker(energy=1.0), Tucker(budget=100)):
        fitted = scheme.fit(zeros)
        assert fitted.ranks == (0, 0) and not fitted.children()
        assert np.array_equal(fitted.decode(), zeros)
    assert Tucker(ranks=(0, 5)).fit(normal(4, 3, 2, 2)).ranks == (0, 0)
    one = np.full((1, 1, 1, 1), -2.5, np.float32)
    np.testing.assert_allclose(Tucker(ranks=(3, 3)).fit(one).decode(), one, rtol=1e-6)
    constant = np.full((4, 3, 2, 2), 2.0, np.float32)
    fitted = Tucker(ranks=(3, 3)).fit(constant)
    assert fitted.ranks == (1, 1)
    np.testing.assert_allclose(fitted.decode(), constant, rtol=1e-5)
    for bad in (normal(5), np.zeros((0, 2), np.float32), np.full((2, 2), np.inf, np.float32)):
        with pytest.raises(SchemeError):
            Tucker(ranks=(1, 1)).fit(bad)


@pytest.mark.parametrize(
    "options",
    [{}, {"ranks": (1, 1), "energy": 0.5}, {"ranks": (1, -1)}, {"energy": 2.0}, {"budget": -1},
     {"ranks": (1, 1), "iterations": -1}],
)  # fmt: skip
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(SchemeError, match="tucker: "):
        Tucker(**options)  # type: ignore[arg-type]
