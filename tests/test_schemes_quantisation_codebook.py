# SPDX-License-Identifier: Apache-2.0
"""Codebooks: the optimum against brute force, Lloyd's iterations, fixed zeros, joint fits."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.schemes import Codebook, CodebookParameters, FitContext, joint_bits
from passes.schemes.codebook_parameters import nearest_entry
from passes.schemes.lloyd import Start, lloyd, start_of
from passes.schemes.optimal_clusters import optimal_centroids
from passes.schemes.sorted_values import SortedValues, merged, sorted_values
from tests.passes_models import normal

STARTS = get_args(Start)
VALUES = st.lists(
    st.tuples(st.integers(-20, 20), st.integers(1, 5)),
    min_size=1,
    max_size=9,
    unique_by=lambda v: v[0],
)


def error_of(data: SortedValues, centroids: np.ndarray) -> float:
    nearest = np.abs(data.values[:, None] - centroids).min(axis=1)
    return float((data.weights * nearest**2).sum())


def least_error(data: SortedValues, count: int, fix_zero: bool) -> float:
    """Over all divisions of the values into runs, one of which has the centroid 0 if so wanted."""
    best, size = np.inf, data.size
    for number in range(1, min(count, size + fix_zero) + 1):
        for inner in combinations(range(size + 1), number - 1):
            runs = [slice(a, b) for a, b in pairwise((0, *inner, size))]
            own, zero = [], []
            for run in runs:
                values, weights = data.values[run], data.weights[run]
                mean = (values * weights).sum() / weights.sum() if values.size else 0.0
                own.append(float((weights * (values - mean) ** 2).sum()))
                zero.append(float((weights * values**2).sum()))
            extra = min(z - o for z, o in zip(zero, own, strict=True)) if fix_zero else 0.0
            best = min(best, sum(own) + extra)
    return best


@given(VALUES, st.integers(1, 6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_optimum_equals_brute_force(
    pairs: list[tuple[int, int]], count: int, fix_zero: bool
) -> None:
    values, weights = np.array(sorted(pairs), np.float64).T
    data = SortedValues(values / 4 + 100 * (len(pairs) % 2), weights)
    centroids = optimal_centroids(data, count, fix_zero=fix_zero)
    assert 1 <= centroids.size <= count and (np.diff(centroids) > 0).all()
    assert not fix_zero or 0.0 in centroids
    best = least_error(data, count, fix_zero)
    assert error_of(data, centroids) == pytest.approx(best, rel=1e-9, abs=1e-9)


def quadratic_optimum(data: SortedValues, count: int) -> float:
    """The recursion of dynamic programming, without any short cut."""
    ends = np.arange(data.size + 1)
    errors = data.errors(np.zeros_like(ends), ends)
    for _ in range(count - 1):
        errors = np.array(
            [
                (errors[: j + 1] + data.errors(ends[: j + 1], np.full(j + 1, j))).min()
                for j in range(data.size + 1)
            ]
        )
    return float(errors[-1])


@pytest.mark.parametrize("count", [2, 7, 40])
@pytest.mark.parametrize("size", [63, 64, 65, 200])
def test_divide_and_conquer_finds_what_the_full_recursion_finds(size: int, count: int) -> None:
    data = sorted_values(np.random.default_rng(size).laplace(size=size).astype(np.float32))
    found = error_of(data, optimal_centroids(data, count))
    assert found == pytest.approx(quadratic_optimum(data, count), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("fix_zero", [False, True])
@pytest.mark.parametrize("cells", [16, 64, 256])
def test_merged_values_keep_the_stated_bound(cells: int, fix_zero: bool) -> None:
    data = sorted_values(np.random.default_rng(1).laplace(size=3000).astype(np.float32))
    small = merged(data, cells)
    assert small.size <= cells + 3 and small.weights.sum() == data.weights.sum()
    edges = np.searchsorted(data.values, (small.values[1:] + small.values[:-1]) / 2)
    assert edges.size == small.size - 1
    cell_of = np.searchsorted(small.weights.cumsum() - 0.5, np.arange(data.size))
    spread = float((data.weights * (data.values - small.values[cell_of]) ** 2).sum())
    exact = error_of(data, optimal_centroids(data, 8, fix_zero=fix_zero, cells=3000))
    found = error_of(data, optimal_centroids(data, 8, fix_zero=fix_zero, cells=cells))
    assert exact <= found * (1 + 1e-9)
    assert found <= (np.sqrt(exact) + np.sqrt(spread)) ** 2 + spread
    assert cells < 256 or found <= 1.01 * exact


def test_sums_survive_outliers_on_both_sides() -> None:
    values = np.concatenate(([-1e7], np.linspace(-1e-3, 1e-3, 50), [1e7])).astype(np.float32)
    data = sorted_values(values)
    first, end = np.array([1, 10]), np.array([5, 20])
    for run, error in zip(zip(first, end, strict=True), data.errors(first, end), strict=True):
        part = data.values[slice(*run)]
        assert error == pytest.approx(((part - part.mean()) ** 2).sum(), rel=1e-6)
    np.testing.assert_allclose(
        data.means(first, end), [data.values[1:5].mean(), data.values[10:20].mean()]
    )


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("fix_zeros", [False, True])
def test_lloyd_is_a_local_optimum_above_the_global_one(start: Start, fix_zeros: bool) -> None:
    weight = np.random.default_rng(2).laplace(size=2000).astype(np.float32)
    book = Codebook(12, start=start, fix_zeros=fix_zeros).fit(weight, FitContext(seed=3))
    best = Codebook(12, fix_zeros=fix_zeros).fit(weight)
    assert book.codebook.size == best.codebook.size == 12
    errors = [float(((b.decode() - weight) ** 2).sum()) for b in (best, book)]
    assert errors[0] <= errors[1] * (1 + 1e-6) < 4 * errors[0]
    indices = nearest_entry(weight, book.codebook)
    for index, entry in enumerate(book.codebook):
        if not fix_zeros or entry != 0:
            assert entry == pytest.approx(weight[indices == index].mean(), abs=0.05)
    assert not fix_zeros or 0 in book.codebook
    again = Codebook(12, start=start, fix_zeros=fix_zeros).fit(weight, FitContext(seed=3))
    np.testing.assert_array_equal(again.symbols, book.symbols)


@pytest.mark.parametrize("start", STARTS)
def test_starts(start: Start) -> None:
    data = sorted_values(np.repeat(np.arange(40, dtype=np.float32), 3))
    centroids = start_of(start, data, 8, 5)
    assert centroids.shape == (8,) and (np.diff(centroids) >= 0).all()
    assert centroids[0] >= 0 and centroids[-1] <= 39
    if start == "linear":
        np.testing.assert_allclose(centroids, np.linspace(0, 39, 8))
    if start == "density":
        np.testing.assert_allclose(centroids, [2, 7, 12, 17, 22, 27, 32, 37])
    if start != "linear":
        assert np.isin(centroids, data.values).all()


def test_empty_clusters_are_moved() -> None:
    data = sorted_values(np.concatenate((normal(500), np.float32([1e4]))))
    centroids, error = lloyd(data, np.linspace(-5, 1e4, 20), 100)
    used = np.unique(np.abs(data.values[:, None] - centroids).argmin(axis=1))
    assert used.size == 20 and np.isfinite(centroids).all()
    assert error == pytest.approx(error_of(data, centroids), rel=1e-2)
    # All start at one place.
    centroids, _ = lloyd(data, np.zeros(8), 100)
    assert np.unique(centroids).size == 8


def test_fixed_zeros_keep_their_own_centroid() -> None:
    weight = normal(4000)
    weight[::2] = 0
    weight += np.float32(0.01) * (weight != 0)
    for start in (None, *STARTS):
        fitted = Codebook(8, start=start, fix_zeros=True).fit(weight)
        assert 0 in fitted.codebook and fitted.codebook.size == 8
        assert not fitted.decode()[weight == 0].any()
    assert Codebook(1, fix_zeros=True).fit(weight).codebook.tolist() == [0]
    positive = Codebook(3, fix_zeros=True).fit(np.abs(weight) + 5)
    assert positive.codebook.size <= 3 and (positive.codebook > 0).any()


@pytest.mark.parametrize("fix_zeros", [False, True])
def test_importance_counts_like_repetition(fix_zeros: bool) -> None:
    rng = np.random.default_rng(0)
    weight, number = rng.laplace(size=300).astype(np.float32), rng.integers(1, 6, 300)
    scheme = Codebook(6, fix_zeros=fix_zeros)
    weighted = scheme.fit(weight, FitContext(importance=number.astype(np.float32)))
    repeated = scheme.fit(np.repeat(weight, number))
    np.testing.assert_allclose(weighted.codebook, repeated.codebook, rtol=1e-5)


def test_warm_start_goes_on_from_the_previous_codebook() -> None:
    weight = normal(3000)
    previous = Codebook(6).fit(weight)
    moved = weight + np.float32(0.01)
    warm = Codebook(6, start="random", iterations=1).fit(moved, FitContext(previous=previous))
    cold = Codebook(6, start="random", iterations=1).fit(moved)
    errors = [float(((b.decode() - moved) ** 2).sum()) for b in (warm, cold)]
    assert errors[0] < errors[1]
    more = Codebook(9, start="linear", fix_zeros=True).fit(moved, FitContext(previous=previous))
    fewer = Codebook(3, start="linear").fit(moved, FitContext(previous=previous))
    assert more.codebook.size == 9 and fewer.codebook.size == 3


@given(st.lists(st.integers(0, 60), min_size=2, max_size=12, unique=True), st.data())
@settings(max_examples=80, deadline=None)
def test_nearest_entry_is_exact_between_neighbouring_floats(places: list[int], data: Any) -> None:
    every = [np.float32(1.0)]
    while len(every) < 61:
        every.append(np.nextafter(every[-1], np.float32(2)))
    book = np.array([every[i] for i in sorted(places)], np.float32)
    values = np.array([every[data.draw(st.integers(0, 60))]], np.float32)
    distance = np.abs(book.astype(np.float64) - values.astype(np.float64))
    assert distance[nearest_entry(values, book)[0]] == distance.min()


@pytest.mark.parametrize("entries", [256, 257])
def test_large_codebooks_take_16_bits(entries: int) -> None:
    weight = normal(30, 20)
    fitted = Codebook(entries).fit(weight)
    assert fitted.codebook.size == entries
    assert fitted.symbols.dtype == (np.int8 if entries == 256 else np.int16)
    assert np.abs(fitted.decode() - weight).max() < 0.3


def test_joint_codebook() -> None:
    weights = {"a": normal(30, 20), "b": 3 * normal(50, seed=1), "c": normal(4, 4, 4, seed=2)}
    fitted = Codebook(16).fit_joint(weights)
    assert list(fitted) == list(weights)
    for name, weight in weights.items():
        assert fitted[name].shape == weight.shape
        np.testing.assert_array_equal(fitted[name].codebook, fitted["a"].codebook)
    flat = np.concatenate([w.reshape(-1) for w in weights.values()])
    together = np.concatenate([fitted[n].decode().reshape(-1) for n in weights])
    np.testing.assert_array_equal(together, Codebook(16).fit(flat).decode())
    assert joint_bits(fitted.values()) == pytest.approx(
        sum(p.bits() for p in fitted.values()) - 2 * 8 * 4 * 16
    )
    masks = {"b": FitContext(mask=weights["b"] > 0)}
    pruned = Codebook(4).fit_joint(weights, masks)
    assert not pruned["b"].decode()[weights["b"] <= 0].any() and 0 in pruned["a"].codebook


def test_joint_codebook_of_two_types() -> None:
    weights = {"a": normal(300), "b": normal(300, seed=1).astype(np.float16)}
    fitted = Codebook(8).fit_joint(weights)
    assert fitted["b"].decode().dtype == np.float16
    np.testing.assert_allclose(fitted["a"].codebook, fitted["b"].codebook, rtol=1e-3)


def test_unused_entries_are_left_out() -> None:
    fitted = Codebook(8, fix_zeros=True).fit(np.float32([1, 2, 3]))
    assert fitted.codebook.tolist() == [1, 2, 3] and isinstance(fitted, CodebookParameters)


def test_codebooks_of_alike_weights_number_their_entries_alike() -> None:
    """They share tables; of two signs either may be the more frequent one."""
    signs = np.where(np.arange(1000) % 2, 0.5, -0.5).astype(np.float32)
    signs[0] = 0.5
    for weight in (signs, -signs):
        assert np.unique(Codebook(entries=2).fit(weight).symbols).tolist() == [-1, 0]
    mostly_zero = np.where(np.arange(1000) % 10, 0.0, -0.5).astype(np.float32)
    fitted = Codebook(entries=2).fit(mostly_zero)
    assert fitted.symbols[1] == 0 and fitted.symbols[0] == -1
    rest = Codebook(entries=2).fit(-mostly_zero)
    assert rest.symbols[1] == 0 and rest.symbols[0] == 1
