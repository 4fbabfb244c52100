# SPDX-License-Identifier: Apache-2.0
"""Low rank is optimal for its rank; ranks are selected as by exhaustive search, also jointly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import FitContext, JointLowRank, LowRank, LowRankParameters, Uniform
from passes.schemes.rank_selection import allocate_ranks, rank_by_cost, search_rank
from passes.schemes.unfolding import Reshape, Unfolding
from tests.passes_models import normal

KERNELS = [(20, 12, 3, 3), (20, 12, 5), (6, 4, 1, 7), (6, 4, 2, 3, 2)]


def squared(array: np.ndarray) -> float:
    return float(np.sum(array.astype(np.float64) ** 2))


def error(weight: np.ndarray, fitted: LowRankParameters) -> float:
    return squared(weight.astype(np.float64) - fitted.decode().astype(np.float64))


@pytest.mark.parametrize("reshape", ["out_in", "spatial"])
@pytest.mark.parametrize("shape", KERNELS)
def test_reshapes_round_trip(shape: tuple[int, ...], reshape: Reshape) -> None:
    weight = normal(*shape)
    unfolding = Unfolding.of(shape, reshape, 0)
    matrix = unfolding.matrix(weight)
    assert matrix.shape == unfolding.matrix_shape
    assert np.array_equal(unfolding.weight(matrix), weight)
    left, right = normal(matrix.shape[0], 3), normal(3, matrix.shape[1])
    assert unfolding.left_layer(left).shape == unfolding.left_shape(3)
    assert np.array_equal(unfolding.left_matrix(unfolding.left_layer(left)), left)
    assert np.array_equal(unfolding.right_matrix(unfolding.right_layer(right)), right)


def test_the_spatial_matrix_is_output_channels_times_width() -> None:
    weight = normal(5, 4, 3, 2)
    matrix = Unfolding.of(weight.shape, "spatial", 0).matrix(weight)
    assert matrix.shape == (5 * 2, 4 * 3)
    assert matrix[3 * 2 + 1, 2 * 3 + 2] == weight[3, 2, 2, 1]


@pytest.mark.parametrize("channel_axis", [0, 1, 2, -1])
def test_the_channel_axis_is_set_against_the_rest(channel_axis: int) -> None:
    weight = normal(6, 5, 4)
    fitted = LowRank(rank=2).fit(weight, FitContext(channel_axis=channel_axis))
    values = np.linalg.svd(
        np.moveaxis(weight, channel_axis, 0).reshape(weight.shape[channel_axis], -1),
        compute_uv=False,
    )
    assert error(weight, fitted) == pytest.approx(squared(values[2:]), rel=1e-5)


@pytest.mark.parametrize("reshape", ["out_in", "spatial"])
@pytest.mark.parametrize("shape", [(9, 14), *KERNELS])
def test_no_other_factors_of_the_rank_do_better(shape: tuple[int, ...], reshape: Reshape) -> None:
    """Eckart and Young: the error is the energy of what is cut off; random and alternating fits of
    the same rank are never below it."""
    weight, rng = normal(*shape), np.random.default_rng(1)
    matrix = Unfolding.of(shape, reshape, 0).matrix(weight).astype(np.float64)
    values = np.linalg.svd(matrix, compute_uv=False)
    for rank in (1, 2, 5):
        fitted = LowRank(rank=rank, reshape=reshape).fit(weight)
        found = error(weight, fitted)
        assert fitted.rank == min(rank, values.size)
        assert found == pytest.approx(squared(values[rank:]), rel=1e-5, abs=1e-8)
        for _ in range(5):
            left = rng.standard_normal((matrix.shape[0], rank))
            for _ in range(3):
                right = np.linalg.lstsq(left, matrix, rcond=None)[0]
                left = np.linalg.lstsq(right.T, matrix.T, rcond=None)[0].T
            assert found <= squared(matrix - left @ right) * (1 + 1e-6) + 1e-9


def test_it_is_idempotent() -> None:
    once = LowRank(rank=3).fit(normal(10, 8)).decode()
    again = LowRank(rank=3).fit(once)
    assert again.rank == 3
    np.testing.assert_allclose(again.decode(), once, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_keep_their_type(dtype: str) -> None:
    import onnx_ir as ir

    kind = ir.DataType.BFLOAT16.numpy() if dtype == "bfloat16" else np.dtype(dtype)
    fitted = LowRank(rank=2).fit(normal(10, 8).astype(kind))
    assert fitted.decode().dtype == kind
    assert all(part.dtype == kind for part in fitted.children())


@pytest.mark.parametrize("energy", [0.0, 0.3, 0.9, 1.0])
def test_energy_takes_the_least_rank(energy: float) -> None:
    weight = normal(12, 9)
    values = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    wanted = next(r for r in range(10) if squared(values[:r]) >= energy * squared(values) - 1e-9)
    assert LowRank(energy=energy).fit(weight).rank == wanted


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.05, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("cost", ["storage", "flops"])
def test_rank_selection_is_that_of_exhaustive_search(alpha: float, cost: str) -> None:
    weight, mu, positions = normal(12, 9), 3.0, 7
    values = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    each = alpha * (12 + 9) * (positions if cost == "flops" else 1)
    wanted = min(range(10), key=lambda r: r * each + mu / 2 * squared(values[r:]))
    scheme = LowRank(alpha=alpha, cost=cost, positions=positions)  # type: ignore[arg-type]
    assert scheme.fit(weight, FitContext(mu=mu)).rank == wanted
    assert rank_by_cost(values, each, mu) == wanted


@pytest.mark.parametrize("alpha", [1e-5, 1e-3, 1e-2, 1.0])
def test_selection_by_coded_bits_is_that_of_exhaustive_search(alpha: float) -> None:
    weight = (normal(30, 6) * 2.0 ** -np.arange(6)) @ normal(6, 24) + 0.05 * normal(30, 24, seed=3)
    inner = Uniform(relative_step=0.2)
    fits = [LowRank(rank=rank, inner=inner).fit(weight) for rank in range(25)]
    objective = [alpha * fit.bits() + 0.5 * error(weight, fit) for fit in fits]
    found = LowRank(alpha=alpha, cost="bits", inner=inner).fit(weight)
    assert found.rank == int(np.argmin(objective))


@pytest.mark.parametrize("best", [0, 1, 50, 199, 400])
def test_search_finds_the_lowest_point_of_a_valley(best: int) -> None:
    calls = []

    def valley(rank: int) -> float:
        calls.append(rank)
        return abs(rank - best) * (2.0 if rank > best else 1.0)

    assert search_rank(valley, 400) == best
    assert len(calls) == len(set(calls)) < 90


def test_factors_share_the_singular_values() -> None:
    fitted = LowRank(rank=4).fit(10 * normal(30, 20))
    left, right = (part.decode() for part in fitted.children())
    np.testing.assert_allclose(
        np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1), rtol=1e-4
    )


def test_the_right_factor_makes_up_for_the_left_ones_rounding() -> None:
    weight = normal(40, 4) @ normal(4, 30)
    coarse, fine = Uniform(bits=3), Uniform(bits=12)

    class Mixed:
        """Coarse for the left factor, fine for the right one."""

        def fit(self, array: np.ndarray, context: FitContext | None = None) -> object:
            return (coarse if array.shape == (40, 4) else fine).fit(array)

    plain = LowRank(rank=4).fit(weight)
    left, right = (part.decode() for part in plain.children())
    without = squared(weight - coarse.fit(left).decode() @ fine.fit(right).decode())
    assert error(weight, LowRank(rank=4, inner=Mixed()).fit(weight)) < 0.9 * without  # type: ignore[arg-type]


def test_a_separable_importance_is_honoured_exactly() -> None:
    weight = normal(10, 8)
    rows = np.exp(normal(10, 1, seed=1)).astype(np.float64)
    columns = np.exp(normal(1, 8, seed=2)).astype(np.float64)
    fitted = LowRank(rank=3).fit(weight, FitContext(importance=rows * columns))
    scaled = np.sqrt(rows) * weight * np.sqrt(columns)
    values = np.linalg.svd(scaled, compute_uv=False)
    found = float(np.sum(rows * columns * (weight - fitted.decode().astype(np.float64)) ** 2))
    assert found == pytest.approx(squared(values[3:]), rel=1e-5)


@pytest.mark.parametrize("inner", [Uniform(bits=8), Uniform(bits=4, granularity="row")])
def test_pruned_rows_and_columns_stay_zero(inner: Uniform) -> None:
    mask = np.ones((10, 8), bool)
    mask[[2, 7]] = False
    mask[:, 3] = False
    decoded = LowRank(rank=3, inner=inner).fit(normal(10, 8), FitContext(mask=mask)).decode()
    assert not decoded[~mask].any()
    assert decoded[mask].any()


def test_a_mask_of_single_elements_is_refused() -> None:
    mask = np.ones((10, 8), bool)
    mask[2, 3] = False
    with pytest.raises(SchemeError, match="whole rows and columns"):
        LowRank(rank=3).fit(normal(10, 8), FitContext(mask=mask))


@pytest.mark.parametrize(
    ("weight", "scheme", "rank"),
    [
        (np.zeros((4, 3), np.float32), LowRank(rank=2), 0),
        (np.zeros((4, 3), np.float32), LowRank(energy=1.0), 0),
        (np.full((1, 1), 3.0, np.float32), LowRank(rank=5), 1),
        (np.full((4, 3), 2.0, np.float32), LowRank(rank=3), 1),
        (normal(4, 3), LowRank(rank=0), 0),
        (normal(4, 3), LowRank(rank=99), 3),
    ],
)
def test_degenerate_weights(weight: np.ndarray, scheme: LowRank, rank: int) -> None:
    fitted = scheme.fit(weight)
    assert fitted.rank == rank and fitted.shape == weight.shape
    wanted = weight if scheme.rank != 0 else np.zeros_like(weight)
    np.testing.assert_allclose(fitted.decode(), wanted, rtol=1e-5, atol=1e-6)
    assert len(fitted.children()) == (2 if rank else 0)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros((0, 3), np.float32), "empty"),
        (np.full((2, 2), np.nan, np.float32), "NaN"),
        (normal(5), "two sides"),
    ],
)
def test_what_cannot_be_factorised(weight: np.ndarray, message: str) -> None:
    with pytest.raises(SchemeError, match=message):
        LowRank(rank=1).fit(weight)


@pytest.mark.parametrize(
    "options",
    [{}, {"rank": 1, "energy": 0.5}, {"rank": -1}, {"energy": 1.5}, {"alpha": -1.0},
     {"rank": 1, "positions": 0}, {"rank": 1, "reshape": "x"}, {"rank": 1, "cost": "x"}],
)  # fmt: skip
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(SchemeError, match="low rank: "):
        LowRank(**options)  # type: ignore[arg-type]


def gain(spectra: dict[str, np.ndarray], ranks: dict[str, int]) -> float:
    return sum(squared(values[: ranks[name]]) for name, values in spectra.items())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("equal", [True, False])
def test_joint_ranks_against_every_choice(seed: int, equal: bool) -> None:
    """Optimal for equal costs and where the most valuable ranks use the budget up; else it misses
    less than the gain of the first rank that does not fit."""
    rng = np.random.default_rng(seed)
    spectra = {n: np.sort(rng.exponential(size=4))[::-1] for n in "abc"}
    costs = {n: 2.0 if equal else float(rng.integers(1, 6)) for n in "abc"}
    items = sorted((-(v**2) / costs[n], n, v**2) for n in "abc" for v in spectra[n])
    used_up = np.cumsum([0.0] + [costs[n] for _, n, _ in items])
    choices = [dict(zip("abc", ranks, strict=True)) for ranks in product(range(5), repeat=3)]
    for budget in [*used_up, *np.arange(0, 40, 1.5)]:
        ranks = allocate_ranks(spectra, costs, budget)
        assert sum(costs[n] * ranks[n] for n in "abc") <= budget
        affordable = [c for c in choices if sum(costs[n] * c[n] for n in "abc") <= budget]
        best, found = max(gain(spectra, c) for c in affordable), gain(spectra, ranks)
        if equal or budget in used_up:
            assert found == pytest.approx(best)
        else:
            first = int(np.searchsorted(used_up, budget, side="right")) - 1
            assert found > best - (items[first][2] if first < len(items) else 1e-9)


def test_one_budget_for_several_weights() -> None:
    weights = {"strong": 5 * normal(20, 10), "weak": normal(30, 10, seed=1)}
    fitted = JointLowRank(budget=300, inner=Uniform(bits=8)).fit(weights)
    spent = sum(fit.rank * sum(fit.shape) for fit in fitted.values())
    assert 260 < spent <= 300
    assert fitted["strong"].rank > fitted["weak"].rank
    relative = JointLowRank(budget=300, relative=True).fit(weights)
    assert relative["weak"].rank > fitted["weak"].rank
    flops = JointLowRank(budget=300).fit(weights, positions={"strong": 1000})
    assert flops["strong"].rank == 0 and flops["weak"].rank == 7


def test_joint_errors_name_the_weight() -> None:
    with pytest.raises(SchemeError, match="bad: "):
        JointLowRank(budget=10).fit({"bad": normal(5)})
    with pytest.raises(SchemeError, match="budget"):
        JointLowRank(budget=-1)
