# SPDX-License-Identifier: Apache-2.0
"""Selections against brute force, the moments against plain least squares, reshapes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx_ir as ir
import pytest

from passes.channels.greedy_refit import RefitProblem, greedy_refit_removal
from passes.channels.labels import CannotTraceError, ChannelLabels, Layout
from passes.channels.lasso_path import lasso_path
from passes.channels.layer_samples import matrix_layer
from passes.channels.reshape_rule import moved_layout
from passes.channels.selection import greedy_removal, lasso_removal, random_removal, smallest
from passes.channels.trace import LayerUse
from tests.passes_models import normal, proto_of, run


def parts_of(channels: int, rows: int = 40, seed: int = 0) -> np.ndarray:
    """What each channel adds to the output, (channels, rows)."""
    return normal(channels, rows, dtype="float64", seed=seed)


def test_each_greedy_step_is_the_best_step() -> None:
    parts = parts_of(7)
    order = greedy_removal(parts @ parts.T, 7)
    assert sorted(order) == list(range(7))
    for step in range(7):
        errors = {
            c: np.linalg.norm(parts[[*order[:step], c]].sum(0))
            for c in set(range(7)) - set(order[:step])
        }
        assert errors[order[step]] == pytest.approx(min(errors.values()))


def test_greedy_finds_channels_that_cancel() -> None:
    parts = parts_of(6)
    parts[4] = -parts[1]
    assert set(greedy_removal(parts @ parts.T, 2)) <= {0, 1, 2, 3, 4, 5}
    parts[[1, 4]] *= 0.5  # each is the smallest, and the second costs less than nothing
    assert set(greedy_removal(parts @ parts.T, 2)) == {1, 4}


def test_each_greedy_step_with_refit_is_the_best_step() -> None:
    """Against least squares from scratch for every candidate; two features each, one has none."""
    x, y = normal(60, 9, dtype="float64"), normal(60, 3, dtype="float64", seed=1)
    members = np.array([[0, 1], [2, 3], [4, 5], [6, -1], [-1, -1]])

    def error(removed: set[int]) -> float:
        gone = {int(f) for c in removed for f in members[c] if f >= 0}
        left = [f for f in range(9) if f not in gone]
        return float(np.linalg.norm(y - x[:, left] @ np.linalg.lstsq(x[:, left], y)[0]) ** 2)

    inverse = np.linalg.inv(x.T @ x)
    problem = RefitProblem(inverse, inverse @ x.T @ y, members, 2.0)
    np.testing.assert_allclose(
        problem.costs(), [2 * (error({c}) - error(set())) for c in range(5)], atol=1e-9
    )
    order = list(greedy_refit_removal([problem], 5))
    assert order[0] == 4 and sorted(order) == [0, 1, 2, 3, 4]
    for step in range(5):
        errors = {c: error({*order[:step], c}) for c in set(range(5)) - set(order[:step])}
        assert errors[order[step]] == pytest.approx(min(errors.values()))


def test_lasso_keeps_the_channels_that_matter() -> None:
    """Three channels make the output; the others are noise as large as they are."""
    parts = parts_of(12, 200)
    target = parts[[2, 5, 9]].sum(0)
    removed = lasso_removal(parts @ parts.T, parts @ target, 9)
    assert set(range(12)) - set(removed) == {2, 5, 9}


def test_lasso_is_near_the_best_subset() -> None:
    parts = parts_of(8, 30, seed=3) * np.linspace(0.2, 2, 8)[:, None]
    whole = parts.sum(0)

    def error(kept: tuple[int, ...]) -> float:
        chosen = parts[list(kept)].T
        return float(np.linalg.norm(whole - chosen @ np.linalg.lstsq(chosen, whole)[0]))

    removed = lasso_removal(parts @ parts.T, parts @ whole, 4)
    kept = tuple(sorted(set(range(8)) - set(removed)))
    every = sorted(error(subset) for subset in combinations(range(8), 4))
    assert error(kept) <= every[len(every) // 10]


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_degenerate_grams(count: int) -> None:
    zero = np.zeros((5, 5))
    assert len(set(greedy_removal(zero, count))) == count
    assert len(set(lasso_removal(zero, np.zeros(5), count))) == count
    same = np.ones((5, 5))  # five copies of one channel
    assert len(set(lasso_removal(same, np.full(5, 5.0), count))) == count
    assert len(set(greedy_removal(same, count))) == count


def test_small_norms_and_random_draws() -> None:
    assert list(smallest(np.array([3.0, 1.0, 2.0, 1.0]), 2)) == [1, 3]
    drawn = [random_removal(9, 4, np.random.default_rng(1)) for _ in range(2)]
    assert list(drawn[0]) == list(drawn[1]) and len(set(drawn[0])) == 4


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ("pads=[1,0,2,1], strides=[2,1]", (6, 3, 3, 2)),
        ("dilations=[2,1]", (6, 3, 2, 3)),
        ('auto_pad="SAME_UPPER", strides=[2,2]', (6, 3, 3, 3)),
        ('auto_pad="SAME_LOWER"', (6, 3, 2, 4)),
        ("group=3, pads=[1,1,1,1]", (6, 2, 3, 3)),
    ],
)
def test_rows_times_matrix_is_the_layer(attributes: str, shape: tuple[int, ...]) -> None:
    channels = 6 if "group" in attributes else 3
    text = (
        '< ir_version: 8, opset_import: ["" : 17] >\n'
        f"n (float[N,{channels},7,8] x) => (float[N,6,a,b] y) {{ y = Conv<{attributes}>(x, w, b) }}"
    )
    proto = proto_of(text, {"w": normal(*shape), "b": normal(6, seed=1)})
    model = ir.serde.deserialize_model(proto)
    use = LayerUse(model.graph[0], 1, 1, np.arange(channels))
    layer = matrix_layer(use)
    assert layer is not None
    x = normal(2, channels, 7, 8, seed=2)
    y = run(proto, {"x": x})["y"]
    places = layer.draw(y.shape, 20, np.random.default_rng(0))
    rows, wanted = layer.features(x, y.shape, places), layer.wanted(y, places)
    bias = layer.bias_vector()
    assert bias is not None and set(places[0]) == {0, 1} and len(rows) == 20
    np.testing.assert_allclose(rows @ layer.matrix() + bias, wanted, rtol=1e-4, atol=1e-4)
    before = np.array(model.graph.initializers["w"].const_value.numpy())
    layer.set_matrix(layer.matrix())
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), before)


@pytest.mark.parametrize(
    ("before", "axis", "after", "expected_axis", "expected"),
    [
        ((None, 3, 2, 2), 1, (None, 12), 1, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
        ((None, 2, 2, 3), 3, (None, 12), 1, [0, 1, 2] * 4),
        ((None, 3, 1, 1), 1, (None, 1, 1, 3), 3, [0, 1, 2]),
        ((None, None, 4), 2, (None, None, 2, 2), 2, [0, 2]),
        ((None, 4, 5, 5), 1, (None, 2, 2, 5, 5), 2, [0, 1]),
    ],
)
def test_reshapes_carry_labels(before, axis, after, expected_axis, expected) -> None:  # type: ignore[no-untyped-def]
    labels = ChannelLabels()
    layout = Layout(axis, labels.fresh(before[axis]))
    moved = moved_layout(layout, before, after, labels)
    assert moved.axis == expected_axis and list(moved.labels) == expected


@pytest.mark.parametrize("after", [(None, 5, 4), (2, 3, 10), (None, None)])
def test_reshapes_across_channels_are_refused(after: tuple[int | None, ...]) -> None:
    labels = ChannelLabels()
    layout = Layout(1, labels.fresh(10))
    with pytest.raises(CannotTraceError):
        moved_layout(layout, (None, 10, 2), after, labels)


@pytest.mark.parametrize("wanted", [0, 1, 5, 11, 12])
def test_the_path_ends_at_the_lasso_solution(wanted: int) -> None:
    """Against the conditions that its minimum has to meet, with channels that are much alike."""
    parts = parts_of(12, 30, seed=5)
    parts[6:] = 0.7 * parts[:6] + 0.3 * parts[6:]
    gram = parts @ parts.T
    target = parts @ (parts.sum(0) + normal(30, dtype="float64", seed=6))
    factors, alpha = lasso_path(gram, target, wanted)
    assert np.count_nonzero(factors) <= wanted
    rests = target - gram @ factors
    assert (np.abs(rests) <= alpha * (1 + 1e-9) + 1e-9).all()
    there = factors != 0
    np.testing.assert_allclose(rests[there], alpha * np.sign(factors[there]), atol=1e-9)
