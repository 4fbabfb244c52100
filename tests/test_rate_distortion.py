# SPDX-License-Identifier: Apache-2.0
"""Rounding by squared error and rate, and steps along an axis."""

from __future__ import annotations

import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import (
    Codebook,
    FitContext,
    MatrixLayout,
    Moments,
    RateDistortion,
    RowUse,
    Trellis,
)
from passes.schemes.adaptive_steps import adaptive_steps
from passes.schemes.entropy import entropy_bits
from tests.passes_models import normal

FLOAT = np.dtype(np.float32)


def laplace(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).laplace(size=shape).astype(np.float32)


def squared_error(fitted: np.ndarray, weight: np.ndarray) -> float:
    return float(np.square(fitted.astype(np.float64) - weight).sum())


def test_no_rate_takes_the_nearest() -> None:
    weight = normal(40, 70)
    fitted = RateDistortion(step=0.3, rate_weight=0.0).fit(weight)
    np.testing.assert_array_equal(fitted.symbols, np.rint(weight / np.float32(0.3)))
    assert fitted.scale.shape == ()
    again = RateDistortion(step=0.3, rate_weight=0.0).fit(fitted.decode())
    np.testing.assert_array_equal(again.symbols, fitted.symbols)


def test_less_error_in_fewer_bits_than_the_nearest() -> None:
    weight = laplace(100, 128)
    plain = RateDistortion(step=2.4, rate_weight=0.0).fit(weight)
    rated = RateDistortion(step=2.0).fit(weight)
    assert squared_error(rated.decode(), weight) < squared_error(plain.decode(), weight)
    assert entropy_bits(rated.symbols) < entropy_bits(plain.symbols)
    assert (np.abs(rated.symbols) <= np.abs(np.rint(weight / np.float32(2.0)))).all()


def test_rows_that_are_read_more_are_nearer() -> None:
    weight, counts = normal(64, 80), np.repeat([1.0, 100.0], 32)
    context = FitContext(moments=RowUse(counts))
    fitted = RateDistortion(relative_step=1.0).fit(weight, context)
    assert fitted.axis == 0 and fitted.scale.shape == (64,)
    halves = [squared_error(fitted.decode()[h], weight[h]) for h in (slice(32), slice(32, 64))]
    assert halves[1] < halves[0] / 10
    other = FitContext(moments=RowUse(counts, axis=1))
    assert RateDistortion(relative_step=1.0).fit(weight.T, other).axis == 1
    one = RateDistortion(relative_step=1.0, adaptive=False).fit(weight, context)
    assert one.axis is None


def test_diagonal_moments_set_the_steps_of_features() -> None:
    layout = MatrixLayout((0, 1), (80, 64), (), (1,), (0,))
    powers = np.geomspace(1, 1000, 64)[None].astype(np.float32)
    context = FitContext(moments=Moments(powers, powers, 9.0, layout))
    fitted = RateDistortion(step=0.2).fit(normal(80, 64), context)
    assert fitted.axis == 1
    products = powers[0] * np.square(fitted.scale)
    assert products.max() / products.min() < 2
    assert products.mean() / powers.mean() == pytest.approx(0.04, rel=1e-3)


def test_importance_counts() -> None:
    weight, importance = laplace(64, 80), np.where(np.arange(80) < 40, 100.0, 1.0)
    fitted = RateDistortion(step=1.0).fit(weight, FitContext(importance=importance))
    error = np.square(fitted.decode() - weight).mean(0)
    assert error[:40].mean() < error[40:].mean() / 10
    with pytest.raises(SchemeError, match="positive and finite"):
        RateDistortion(step=1.0).fit(weight, FitContext(importance=-importance))


def test_pruned_weights_stay_zero() -> None:
    weight = normal(30, 50)
    fitted = RateDistortion(step=0.2).fit(weight, FitContext(mask=weight > 0))
    assert not fitted.symbols[weight <= 0].any()
    assert fitted.symbols[weight > 0].any()


@pytest.mark.parametrize("shape", [(1,), (7,), (300,), (3, 3), (5, 4, 3, 3), (2, 40000)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    weight = normal(*shape)
    fitted = RateDistortion(step=0.1).fit(weight)
    assert fitted.shape == shape
    assert np.abs(fitted.decode() - weight).max() < 0.16


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_weights(value: float) -> None:
    weight = np.full((20, 20), value, np.float32)
    fitted = RateDistortion(relative_step=0.5).fit(weight, FitContext(moments=RowUse(np.ones(20))))
    np.testing.assert_allclose(fitted.decode(), weight, atol=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one"),
        ({"step": np.inf}, "positive and finite"),
        ({"step": 1.0, "rounds": 9}, "rounds must be 1 to 8"),
        ({"step": 1.0, "rate_weight": np.nan}, "rate_weight"),
    ],
)
def test_options_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(SchemeError, match=f"rate_distortion: .*{message}"):
        RateDistortion(**options)  # type: ignore[arg-type]


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(SchemeError, match="more than 16 bits"):
        RateDistortion(step=1e-6).fit(normal(4, 4))
    with pytest.raises(SchemeError, match="empty"):
        RateDistortion(step=1.0).fit(np.zeros((0, 3), np.float32))


def test_steps_are_optimal_for_their_sum() -> None:
    importance = np.exp(normal(500, 1))
    scale, axis = adaptive_steps(importance, 0.5, FLOAT)
    assert axis == 0
    costs = importance[:, 0] * np.square(scale, dtype=np.float64)
    assert costs.mean() == pytest.approx(0.25 * importance.mean(), rel=1e-3)
    assert costs.max() / costs.min() <= 2**0.5 * 1.001  # a quarter of an octave of the step
    gain = np.mean(np.log2(scale / 0.5))
    best = 0.5 * (np.log2(importance.mean()) - np.log2(importance).mean())
    assert gain == pytest.approx(best, abs=0.01)
    assert len(np.unique(scale)) < 64


def test_steps_are_one_where_nothing_is_gained() -> None:
    assert adaptive_steps(np.ones((5, 1)), 0.5, FLOAT)[1] is None
    assert adaptive_steps(np.ones((1, 1)), 0.5, FLOAT)[0].shape == ()
    scale, axis = adaptive_steps(np.full((5, 7), 3.0) * (1 + np.arange(7)), 0.5, FLOAT)
    assert axis == 1 and scale.shape == (7,)


def test_steps_span_a_bounded_range() -> None:
    scale, _ = adaptive_steps(np.geomspace(1e-30, 1e30, 99)[:, None], 1.0, FLOAT)
    assert np.isfinite(scale).all() and scale.max() / scale.min() <= 64


def test_codebooks_and_trellises_are_weighted_by_what_elements_meet() -> None:
    """Errors in rows that are read often count more."""
    rng = np.random.default_rng(8)
    weight = (rng.standard_normal((40, 50)) * np.linspace(0.5, 2, 40)[:, None]).astype(np.float32)
    use = RowUse(np.r_[np.full(4, 1000.0), np.ones(36)])
    importance = use.shares()[:, None] / use.shares().mean()
    known = FitContext(moments=use)

    def error(decoded: np.ndarray) -> float:
        return float((importance * (decoded - weight) ** 2).sum())

    book = Codebook(entries=6)
    assert error(book.fit(weight, known).decode()) < 0.5 * error(book.fit(weight).decode())
    trellis = Trellis(step=0.5, rate_weight=0.3)
    plain, aware = (
        error(found.decode()) / 0.25 + 0.3 * found.coded_bits
        for found in (trellis.fit(weight), trellis.fit(weight, known))
    )
    assert aware < 0.9 * plain
