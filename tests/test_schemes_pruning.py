# SPDX-License-Identifier: Apache-2.0
"""Pruning: projections are feasible, idempotent and optimal; groups, budgets, degenerate inputs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import (
    FitContext,
    Lossless,
    Prune,
    PruneParameters,
    Uniform,
    prune_jointly,
    sparsities_for_total,
)
from passes.schemes.projections import hard_threshold, l1_ball, largest, soft_threshold
from tests.passes_models import normal

FEW = normal(2, 3, seed=5)


def loss(weight: np.ndarray, other: np.ndarray, importance: Any = 1.0) -> float:
    return float(np.sum(importance * np.square(weight.astype(np.float64) - other)))


def subsets(count: int, most: int) -> Any:
    return (c for number in range(most + 1) for c in combinations(range(count), number))


@pytest.mark.parametrize("keep", range(8))
@pytest.mark.parametrize("weighted", [False, True])
def test_l0_constraint_is_optimal(keep: int, weighted: bool) -> None:
    importance = np.random.default_rng(0).uniform(0.1, 5, FEW.shape) if weighted else None
    fitted = Prune(keep=keep).fit(FEW, FitContext(importance=importance))
    found = fitted.decode()
    assert np.count_nonzero(found) == min(keep, FEW.size)
    errors = []
    for chosen in subsets(FEW.size, keep):
        other = np.zeros(FEW.size, np.float32)
        other[list(chosen)] = FEW.reshape(-1)[list(chosen)]
        errors.append(
            loss(FEW, other.reshape(FEW.shape), 1.0 if importance is None else importance)
        )
    assert loss(FEW, found, 1.0 if importance is None else importance) <= min(errors) + 1e-12
    assert np.array_equal(Prune(keep=keep).fit(found).decode(), found)


@pytest.mark.parametrize("granularity", ["kernel", "filter", "block"])
@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4])
def test_l0_constraint_on_groups_is_optimal_by_norm(granularity: Any, keep: int) -> None:
    weight = normal(2, 2, 2, 1, seed=3)
    scheme = Prune(keep=keep, granularity=granularity, block=(1, 2), importance="l2")
    fitted = scheme.fit(weight)
    groups = {
        "kernel": [weight[i, j] for i, j in product(range(2), range(2))],
        "filter": list(weight),
        "block": list(weight.reshape(4, 2)),
    }[granularity]
    energies = sorted(float(np.sum(np.square(g, dtype=np.float64))) for g in groups)
    dropped = sum(energies[: max(len(energies) - keep, 0)])
    assert loss(weight, fitted.decode()) == pytest.approx(dropped, abs=1e-9)


def grid(count: int) -> np.ndarray:
    axis = np.linspace(-1.5, 1.5, 61)
    return np.stack(np.meshgrid(*[axis] * count, indexing="ij"), -1).reshape(-1, count)


@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_l1_ball_is_the_nearest_point(radius: float, weighted: bool) -> None:
    weight = np.array([1.2, -0.7, 0.4], np.float32)
    importance = np.array([1.0, 3.0, 0.5]) if weighted else None
    found = Prune(l1_radius=radius).fit(weight, FitContext(importance=importance)).decode()
    assert np.abs(found).sum() <= radius + 1e-6
    assert (found * weight >= 0).all()
    points = grid(3)
    inside = points[np.abs(points).sum(1) <= radius + 1e-9]
    h = 1.0 if importance is None else importance
    best = np.min(np.sum(h * np.square(inside - weight), axis=1))
    assert loss(weight, found, h) <= best + 1e-6
    again = Prune(l1_radius=radius).fit(found, FitContext(importance=importance)).decode()
    np.testing.assert_allclose(again, found, atol=1e-7)


def test_l1_ball_touches_and_agrees_with_bisection() -> None:
    magnitudes = np.abs(normal(500, seed=1)).astype(np.float64)
    found = l1_ball(magnitudes, 20.0)
    low, high = 0.0, float(magnitudes.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if np.maximum(magnitudes - middle, 0).sum() > 20 else (low, middle)
        )
    np.testing.assert_allclose(found, np.maximum(magnitudes - low, 0), atol=1e-12)
    assert found.sum() == pytest.approx(20.0)
    assert np.array_equal(l1_ball(magnitudes, 1e9), magnitudes)
    assert not l1_ball(magnitudes, 0.0).any() and l1_ball(np.zeros(0), 1.0).size == 0
    np.testing.assert_allclose(l1_ball(np.ones(4), 2.0), 0.5)


@pytest.mark.parametrize("mu", [0.5, 2.0, 100.0])
@pytest.mark.parametrize("penalty", [0.0, 0.2, 1.0])
def test_penalties_are_minimal(mu: float, penalty: float) -> None:
    for value in np.linspace(-2, 2, 41).astype(np.float32):
        weight, context, value = np.array([value]), FitContext(mu=mu), float(value)
        x = np.concatenate((np.linspace(-2.5, 2.5, 5001), [value]))
        fit = mu / 2 * np.square(x - value)
        hard = float(Prune(l0_penalty=penalty).fit(weight, context).decode()[0])
        soft = float(Prune(l1_penalty=penalty).fit(weight, context).decode()[0])
        assert (
            penalty * (hard != 0) + mu / 2 * (hard - value) ** 2
            <= np.min(penalty * (x != 0) + fit) + 1e-9
        )
        assert (
            penalty * abs(soft) + mu / 2 * (soft - value) ** 2
            <= np.min(penalty * np.abs(x) + fit) + 1e-6
        )
    scale = np.sqrt(2 * penalty / mu)
    assert hard_threshold(np.array([scale * 1.01 + 1e-9, scale * 0.99]), penalty, mu).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["l0_penalty", "l1_penalty"])
def test_penalties_at_mu_zero_keep_everything(name: str) -> None:
    fitted = Prune(**{name: 3.0}).fit(FEW, FitContext(mu=0.0))
    assert np.array_equal(fitted.decode(), FEW)
    assert np.array_equal(soft_threshold(np.ones(2), 1.0, 0.0), np.ones(2))


def test_penalty_on_groups_is_the_proximal_map_of_their_norms() -> None:
    weight = normal(6, 4, seed=2)
    norms = np.linalg.norm(weight.astype(np.float64), axis=1, keepdims=True)
    soft = Prune(l1_penalty=1.0, granularity="filter").fit(weight, FitContext(mu=0.5)).decode()
    np.testing.assert_allclose(soft, weight * np.maximum(1 - 2.0 / norms, 0), atol=1e-6)
    ball = Prune(l1_radius=4.0, granularity="filter").fit(weight).decode()
    assert np.linalg.norm(ball, axis=1).sum() == pytest.approx(4.0, abs=1e-5)


@pytest.mark.parametrize(("number", "length"), [(2, 4), (1, 3), (0, 4), (4, 4), (1, 16)])
def test_pattern_keeps_the_largest_of_each_run(number: int, length: int) -> None:
    weight = normal(5, 10, seed=7)
    found = Prune(pattern=(number, length)).fit(weight).decode()
    for row, source in zip(found, weight, strict=True):
        for start in range(0, 10, length):
            part, origin = row[start : start + length], source[start : start + length]
            kept = np.flatnonzero(part)
            assert kept.size == min(number, part.size)
            order = np.argsort(-np.abs(origin), kind="stable")[:number]
            assert set(kept) == set(order.tolist())
    assert np.array_equal(Prune(pattern=(number, length)).fit(found).decode(), found)


def test_pattern_runs_along_input_channels() -> None:
    weight = normal(3, 8, 2, 2)
    found = Prune(pattern=(2, 4)).fit(weight, FitContext(channel_axis=0)).decode()
    assert (np.count_nonzero(found.reshape(3, 2, 4, 2, 2), axis=2) == 2).all()
    keras = (
        Prune(pattern=(2, 4))
        .fit(np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), FitContext(channel_axis=3))
        .decode()
    )
    assert np.array_equal(keras.transpose(3, 2, 0, 1), found)


def test_filters_and_kernels_follow_the_channel_axis() -> None:
    weight = normal(3, 3, 4, 8)
    fitted = Prune(keep=3, granularity="filter").fit(weight, FitContext(channel_axis=3))
    assert np.count_nonzero(fitted.mask.any(axis=(0, 1, 2))) == 3
    fitted = Prune(keep=5, granularity="kernel").fit(weight, FitContext(channel_axis=3))
    assert np.count_nonzero(fitted.mask.any(axis=(0, 1))) == 5 and fitted.density == 5 / 32


def test_blocks_at_the_border_are_smaller() -> None:
    weight = np.ones((5, 7), np.float32)
    weight[4, 6] = 100
    fitted = Prune(keep=1, granularity="block", block=(2, 4)).fit(weight)
    expected = np.zeros((5, 7), bool)
    expected[4:, 4:] = True
    assert np.array_equal(fitted.mask, expected)


@pytest.mark.parametrize(
    ("amount", "kept"),
    [({"fraction": 0.25}, 25), ({"sparsity": 0.9}, 10), ({"keep": 7}, 7), ({"keep": 1000}, 100)],
)
@pytest.mark.parametrize("importance", ["abs", "l1", "l2", "random", np.square])
def test_amounts(amount: dict[str, Any], kept: int, importance: Any) -> None:
    fitted = Prune(**amount, importance=importance).fit(normal(10, 10))
    assert np.count_nonzero(fitted.mask) == kept
    if importance != "random":
        scores = np.abs(normal(10, 10))
        assert kept == 100 or scores[fitted.mask].min() >= scores[~fitted.mask].max()


def test_threshold_stages_and_seeds() -> None:
    weight = normal(10, 10)
    assert np.array_equal(Prune(threshold=0.5).fit(weight).mask, np.abs(weight) >= 0.5)
    staged = Prune(sparsity=[0.5, 0.7, 0.9])
    counts = [np.count_nonzero(staged.at_stage(i).fit(weight).mask) for i in range(3)]
    assert counts == [50, 30, 10] and np.count_nonzero(staged.fit(weight).mask) == 10
    first, again, other = (
        Prune(fraction=0.5, importance="random").fit(weight, FitContext(seed=s)).mask
        for s in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_ties_go_to_the_first() -> None:
    fitted = Prune(keep=3).fit(np.ones((2, 4), np.float32))
    assert np.flatnonzero(fitted.mask).tolist() == [0, 1, 2]
    assert largest(np.array([1.0, 2, 2, 2, 3]), 3).tolist() == [False, True, True, False, True]
    joint = prune_jointly({"b": np.ones(3, np.float32), "a": np.ones(3, np.float32)}, Prune(keep=4))
    assert list(joint) == ["b", "a"]
    assert np.count_nonzero(joint["a"].mask) == 3 and np.count_nonzero(joint["b"].mask) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_survivors_keep_their_bits(dtype: Any) -> None:
    weight = normal(9, 9).astype(dtype)
    fitted = Prune(fraction=0.3).fit(weight)
    found = fitted.decode()
    assert found.dtype == weight.dtype == fitted.dtype
    assert found[fitted.mask].tobytes() == weight[fitted.mask].tobytes()
    assert not found[~fitted.mask].astype(np.float32).any()
    assert fitted.bits() < 8 * weight.nbytes


@pytest.mark.parametrize(
    "inner",
    [
        Uniform(bits=6),
        Uniform(bits=4, symmetric=False),
        Uniform(step=0.05, symmetric=False),
        Uniform(relative_step=0.3, granularity="row"),
        Uniform(bits=3, symmetric=False, granularity="group", group_size=8),
        Lossless(),
        Prune(keep=20, inner=Uniform(bits=8)),
    ],
)
def test_pruned_weights_stay_zero_through_the_inner_scheme(inner: Any) -> None:
    weight = normal(16, 24) + np.float32(1.0)
    fitted = Prune(sparsity=0.8, inner=inner).fit(weight)
    assert not fitted.decode()[~fitted.mask].any()
    assert fitted.children()[0].shape == weight.shape


def test_an_inner_scheme_that_loses_zeros_is_refused() -> None:
    class Ones:
        def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Any:
            return Lossless().fit(np.ones_like(weight))

    with pytest.raises(SchemeError, match="does not keep zeros"):
        Prune(fraction=0.5, inner=Ones()).fit(FEW)


def test_mask_of_the_context_counts_as_pruned() -> None:
    weight, mask = normal(4, 5), np.ones((4, 5), bool)
    mask[0] = False
    fitted = Prune(fraction=0.9).fit(weight, FitContext(mask=mask))
    assert np.array_equal(fitted.mask, mask)
    with pytest.raises(SchemeError, match="mask"):
        Prune(keep=1).fit(weight, FitContext(mask=mask[0]))


@pytest.mark.parametrize(
    "scheme",
    [
        Prune(fraction=0.5),
        Prune(keep=0),
        Prune(l1_radius=1.0),
        Prune(l0_penalty=0.1),
        Prune(l1_penalty=0.1),
        Prune(threshold=0.1),
        Prune(pattern=(2, 4)),
        Prune(fraction=0.5, granularity="filter"),
        Prune(fraction=0.5, granularity="block", inner=Uniform(bits=4)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1, 2)])
@pytest.mark.parametrize("value", [0.0, -2.0])
def test_degenerate_weights(scheme: Prune, shape: tuple[int, ...], value: float) -> None:
    fitted = scheme.fit(np.full(shape, value, np.float32))
    assert isinstance(fitted, PruneParameters) and fitted.shape == shape == fitted.mask.shape
    assert np.isfinite(fitted.decode()).all() and np.isfinite(fitted.bits())
    assert value or not fitted.mask.any()
    again = scheme.fit(fitted.decode()).decode()
    if scheme.l1_penalty is None:  # which shrinks at every application
        np.testing.assert_allclose(again, fitted.decode(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "exactly one of .* not none"),
        ({"keep": 1, "fraction": 0.5}, "not fraction and keep"),
        ({"fraction": 1.5}, "fraction must be 0 to 1"),
        ({"sparsity": [0.5, 2.0]}, "sparsity must be 0 to 1"),
        ({"sparsity": []}, "sparsity must be"),
        ({"sparsity": [0.5], "stage": 1}, "stage 1 of 1"),
        ({"keep": 1, "stage": 0}, "a stage needs a list"),
        ({"keep": -1}, "keep must be"),
        ({"l1_radius": float("nan")}, "l1_radius must be"),
        ({"pattern": (5, 4)}, "pattern must be"),
        ({"pattern": (2, 4), "granularity": "filter"}, "a pattern is of elements"),
        ({"keep": 1, "granularity": "row"}, "no granularity 'row'"),
        ({"keep": 1, "importance": "l3"}, "importance is 'l3'"),
        ({"l0_penalty": 1.0, "importance": "random"}, "importance must be left out"),
        ({"keep": 1, "block": (0, 4)}, "block must be"),
    ],
)
def test_wrong_settings(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemeError, match=text):
        Prune(**options)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Prune(keep=1).fit(np.zeros((0, 3), np.float32)), "empty"),
        (lambda: Prune(keep=1).fit(np.array([np.nan], np.float32)), "NaN"),
        (lambda: Prune(keep=1, granularity="kernel").fit(FEW), "no kernels"),
        (lambda: Prune(keep=1, importance=lambda w: w[0]).fit(FEW), "scores of shape"),
        (lambda: Prune(keep=1, importance=lambda w: w / 0).fit(FEW), "not finite"),
        (lambda: prune_jointly({"w": np.array([np.inf], np.float32)}, Prune(keep=1)), "^w: "),
        (lambda: Prune(keep=1).fit(FEW, FitContext(importance=np.zeros(3))), "positive"),
        (
            lambda: Prune(l1_radius=1.0, granularity="filter").fit(
                FEW, FitContext(importance=np.ones(3))
            ),
            "no closed form",
        ),
        (lambda: Prune(keep=1, granularity="filter").fit(FEW, FitContext(channel_axis=5)), "axis"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_weights(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(SchemeError, match=text):
        call()


@pytest.mark.parametrize("amount", [{"keep": 30}, {"l1_radius": 9.0}, {"fraction": 0.2}])
def test_joint_pruning_is_that_of_one_vector(amount: dict[str, Any]) -> None:
    weights = {"a": normal(6, 7), "b": normal(40, seed=1) * np.float32(3), "c": normal(2, 2, 2)}
    joint = prune_jointly(weights, Prune(**amount))
    single = Prune(**amount).fit(np.concatenate([w.reshape(-1) for w in weights.values()])).decode()
    found = np.concatenate([joint[name].decode().reshape(-1) for name in weights])
    np.testing.assert_allclose(found, single, atol=1e-7)
    assert prune_jointly({}, Prune(**amount)) == {}


def test_joint_pruning_quantises_each_weight() -> None:
    weights = {"a": normal(6, 7), "b": normal(9, 3, seed=1)}
    joint = prune_jointly(weights, Prune(keep=20, inner=Uniform(bits=4)))
    assert sum(np.count_nonzero(p.mask) for p in joint.values()) == 20
    assert all(p.children()[0].name == "uniform" for p in joint.values())


def convex(points: list[tuple[float, float]], at: float) -> float:
    return float(np.interp(at, [p[0] for p in points], [p[1] for p in points]))


@pytest.mark.parametrize("total", [0.0, 0.2, 0.5, 0.75, 0.9])
def test_sensitivity_chooses_the_best_sparsities(total: float) -> None:
    curves = {
        "a": [(0.0, 0.0), (0.5, 0.1), (0.8, 1.0), (1.0, 9.0)],
        "b": [(0.0, 0.0), (0.5, 0.5), (0.9, 1.2), (1.0, 2.0)],
    }
    sizes = {"a": 100, "b": 300}
    found = sparsities_for_total(curves, sizes, total)
    pruned = sum(sizes[n] * found[n] for n in curves) / 400
    assert pruned == pytest.approx(total)
    best = min(
        convex(curves["a"], a) + convex(curves["b"], b)
        for a, b in product(np.linspace(0, 1, 101), np.linspace(0, 1, 101))
        if 100 * a + 300 * b >= 400 * total - 1e-9
    )
    assert sum(convex(curves[n], found[n]) for n in curves) <= best + 1e-9


def test_sensitivity_of_odd_curves() -> None:
    bumpy = {"a": [(0.3, 5.0), (0.6, 1.0)], "b": [(0.5, 10.0)]}
    found = sparsities_for_total(bumpy, {"a": 10, "b": 10}, 0.3)
    assert found == pytest.approx({"a": 0.6, "b": 0.0})
    better = sparsities_for_total({"a": [(0, 1.0), (0.4, 0.5), (0.8, 2.0)]}, {"a": 10}, 0.0)
    assert better == {"a": 0.4}
    assert sparsities_for_total({}, {}, 0.5) == {}
    for curves, total, text in [
        ({"a": [(0.5, 1.0)]}, 0.6, "the curves reach 0.5"),
        ({"a": [(1.5, 1.0)]}, 0.1, "leaves 0 to 1"),
        ({"b": [(0.5, 1.0)]}, 0.1, "no size"),
        ({"a": [(0.5, 1.0)]}, 2.0, "total must be"),
    ]:
        with pytest.raises(SchemeError, match=text):
            sparsities_for_total(curves, {"a": 10}, total)
