# SPDX-License-Identifier: Apache-2.0
"""Compensated rounding against a slow oracle, and what it promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import Compensated, FitContext, MatrixLayout, Moments, RowUse, UniformParameters
from passes.schemes.entropy import entropy_bits
from passes.schemes.feedback import feedback_of
from runtime.errors import CodecError
from runtime.rounding import SymbolRates, round_features
from runtime.wide import encode_wide
from tests.passes_models import normal

MATMUL = MatrixLayout((0, 1), (12, 10), (), (0,), (1,))
LAYOUTS = {
    "matmul": (MATMUL, (12, 10)),
    "gemm": (MatrixLayout((0, 1), (10, 12), (), (1,), (0,)), (10, 12)),
    "conv": (MatrixLayout((0, 1, 2), (1, 6, 4, 3), (0,), (2, 3), (1,)), (6, 4, 3)),
    "groups": (MatrixLayout((0, 1, 2), (2, 3, 4, 3), (0,), (2, 3), (1,)), (6, 4, 3)),
    "depthwise": (MatrixLayout((0, 1, 2), (6, 1, 1, 9), (0,), (2, 3), (1,)), (6, 1, 9)),
    "recurrent": (MatrixLayout((0, 1, 2), (2, 8, 5), (0,), (2,), (1,)), (2, 8, 5)),
    "conv_transpose": (MatrixLayout((0, 1, 2), (2, 2, 5, 3), (0,), (1,), (2, 3)), (4, 5, 3)),
    "moved": (MatrixLayout((0, 2, 1), (1, 4, 5, 3), (0,), (1,), (2, 3)), (4, 3, 5)),
}


def moments_for(layout: MatrixLayout, rows: int = 40, seed: int = 0) -> Moments:
    """Of correlated rows."""
    groups, features, _ = layout.matrix_shape
    mixing = normal(groups, features, features, seed=seed) + 2 * np.eye(features)
    x = normal(groups, rows, features, seed=seed + 1) @ mixing
    inputs = np.asarray(x.transpose(0, 2, 1) @ x / rows, np.float32)
    return Moments(inputs, np.asarray(x.mean(1), np.float32), float(rows), layout)


def output_error(moments: Moments, error: np.ndarray) -> float:
    matrix = moments.layout.matrix(error.astype(np.float64))
    return float(np.einsum("gfo,gfe,geo->", matrix, moments.inputs.astype(np.float64), matrix))


def oracle(matrix: np.ndarray, inputs: np.ndarray, step: float, damping: float) -> np.ndarray:
    """Rounds features in the order of their power; after each, those left take the values that
    least squares gives them, by the inverse of what is left of H (optimal brain surgeon)."""
    left = inputs.astype(np.float64) + damping * np.mean(np.diag(inputs)) * np.eye(len(inputs))
    order = list(np.argsort(-np.diag(inputs.astype(np.float64)), kind="stable"))
    values, symbols = matrix.astype(np.float64) / step, np.zeros(matrix.shape, np.int64)
    while order:
        first, rest = order[0], order[1:]
        symbols[first] = np.rint(values[first])
        missed = values[first] - symbols[first]
        inverse = np.linalg.inv(left[np.ix_(order, order)])
        for at, feature in enumerate(rest, 1):
            values[feature] -= missed * inverse[0, at] / inverse[0, 0]
        order = rest
    return symbols


@pytest.mark.parametrize("kind", LAYOUTS)
def test_symbols_are_those_of_the_oracle(kind: str) -> None:
    layout, shape = LAYOUTS[kind]
    weight, moments = normal(*shape, seed=5), moments_for(layout)
    scheme = Compensated(step=0.7, rate_weight=0.0, sweeps=0, adaptive=False)
    fitted = scheme.fit(weight, FitContext(moments=moments))
    for group in range(layout.matrix_shape[0]):
        expected = oracle(layout.matrix(weight)[group], moments.inputs[group], 0.7, 0.01)
        np.testing.assert_array_equal(layout.matrix(fitted.symbols)[group], expected)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_output_is_nearer_than_with_nearest_values(kind: str) -> None:
    layout, shape = LAYOUTS[kind]
    weight, moments = normal(*shape, seed=5), moments_for(layout)
    nearest = np.rint(weight / 0.7) * np.float32(0.7)
    context, plain = FitContext(moments=moments), Compensated(step=0.7, rate_weight=0.0)
    errors = [
        output_error(moments, replace(plain, sweeps=n).fit(weight, context).decode() - weight)
        for n in (0, 1, 3)
    ]
    assert errors[0] < output_error(moments, nearest - weight)
    assert errors[2] <= errors[1] * 1.01 and errors[1] <= errors[0] * 1.01


def test_uncorrelated_inputs_leave_the_nearest_values() -> None:
    inputs = np.eye(12, dtype=np.float32)[None]
    moments = Moments(inputs, np.zeros((1, 12), np.float32), 9.0, MATMUL)
    weight = normal(12, 10)
    fitted = Compensated(step=0.5, rate_weight=0.0).fit(weight, FitContext(moments=moments))
    np.testing.assert_array_equal(fitted.symbols, np.rint(weight / 0.5))
    again = Compensated(step=0.5, rate_weight=0.0).fit(fitted.decode(), FitContext(moments=moments))
    np.testing.assert_array_equal(again.symbols, fitted.symbols)


def test_after_many_sweeps_no_single_symbol_can_be_better() -> None:
    weight, moments = normal(12, 10, seed=5), moments_for(MATMUL)
    scheme = Compensated(step=0.7, rate_weight=0.0, sweeps=16, damping=0.0, adaptive=False)
    symbols = scheme.fit(weight, FitContext(moments=moments)).symbols.astype(np.float64)
    least = output_error(moments, symbols * 0.7 - weight)
    for place in np.ndindex(symbols.shape):
        for change in (-1, 1):
            other = symbols.copy()
            other[place] += change
            assert output_error(moments, other * 0.7 - weight) >= least * (1 - 1e-5)


def rounded_by_hand(
    symbols: np.ndarray, targets: np.ndarray, coupling: np.ndarray, importance: np.ndarray,
    rates: SymbolRates, rate_weight: float, refine: bool,
) -> np.ndarray:  # fmt: skip
    """The same as round_features for one output, bits by counting all symbols anew: rows of one
    symbol have no neighbours that a choice could make dearer."""
    symbols, targets = symbols.copy(), targets.astype(np.float64)
    missed = np.zeros(len(targets))
    for i, target in enumerate(targets):
        near = int(np.rint(target))
        found = []
        for symbol in dict.fromkeys([near, near - int(np.sign(near)), 0]):
            other = symbols.copy()
            other[i] = symbol
            cost = importance[i] * (target - symbol) ** 2 + rate_weight * rates.total(other)
            found.append((cost, symbol))
        symbol = min(found)[1]
        missed[i] = symbols[i] - symbol if refine else target - symbol
        symbols[i] = symbol
        targets[i + 1 :] += coupling[i, i + 1 :] * missed[i]
    return symbols


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("spread", [1.0, 60.0, 900.0])
def test_rates_and_feedback_by_hand(refine: bool, spread: float) -> None:
    count = 60
    before = np.asarray(np.rint(spread * normal(count, seed=1)), np.int16)
    rates = SymbolRates(before.reshape(1, count, 1))
    targets = np.asarray(before + normal(count, seed=2), np.float32)[:, None]
    coupling = np.asarray(0.3 * normal(count, count, seed=3), np.float32)
    importance = np.asarray(np.exp(normal(count, seed=4)), np.float32)
    expected = rounded_by_hand(before, targets[:, 0], coupling, importance, rates, 0.3, refine)
    symbols = before.copy()
    round_features(
        symbols, targets.copy(), coupling, importance, np.arange(count), stride=1,
        rates=rates, rate_weight=0.3, refine=refine,
    )  # fmt: skip
    np.testing.assert_array_equal(symbols, expected)
    assert (symbols != np.rint(targets[:, 0])).any()


def laplace_weight(shape: tuple[int, ...] = (48, 96)) -> np.ndarray:
    return np.random.default_rng(3).laplace(size=shape).astype(np.float32)


def coded_bytes(fitted: UniformParameters) -> int:
    symbols = fitted.symbols
    return int(encode_wide([symbols.reshape(1, symbols.shape[0], -1)]).nbytes)


def test_the_rate_in_the_choice_pays() -> None:
    layout = MatrixLayout((0, 1), (48, 256), (), (0,), (1,))
    weight, moments = laplace_weight((48, 256)), moments_for(layout, 200)
    context = FitContext(moments=moments)
    plain = Compensated(step=2.4, rate_weight=0.0).fit(weight, context)
    rated = Compensated(step=2.0).fit(weight, context)
    errors = [output_error(moments, f.decode() - weight) for f in (plain, rated)]
    assert errors[1] < errors[0]
    assert coded_bytes(rated) < coded_bytes(plain)


def test_steps_follow_what_inputs_cost() -> None:
    layout = MatrixLayout((0, 1), (48, 96), (), (0,), (1,))
    scales = np.exp2(np.linspace(-2, 2, 48)).astype(np.float32)
    rows = normal(200, 48) * scales
    scaled = Moments((rows.T @ rows / 200)[None], rows.mean(0)[None], 200.0, layout)
    context = FitContext(moments=scaled)
    fitted = Compensated(step=0.1).fit(laplace_weight(), context)
    assert (fitted.axis, fitted.scale.shape) == (0, (48,))
    assert np.corrcoef(np.log(fitted.scale), np.log(scales))[0, 1] < -0.8
    one = Compensated(step=0.1, adaptive=False).fit(laplace_weight(), context)
    assert (one.axis, one.scale.shape) == (None, ())
    errors = [output_error(scaled, f.decode() - laplace_weight()) for f in (fitted, one)]
    assert errors[0] < errors[1]
    assert entropy_bits(fitted.symbols) < 0.95 * entropy_bits(one.symbols)


def test_pruned_weights_stay_zero() -> None:
    weight, mask = normal(12, 10), normal(12, 10, seed=9) > 0
    fitted = Compensated(step=0.3).fit(weight, FitContext(moments=moments_for(MATMUL), mask=mask))
    assert not fitted.decode()[~mask].any()
    assert fitted.decode()[mask].any()


def test_outputs_that_count_more_are_nearer() -> None:
    weight, moments = laplace_weight((12, 10)), moments_for(MATMUL)
    importance = np.where(np.arange(10) < 5, 100.0, 0.01)
    context = FitContext(moments=moments, importance=importance)
    fitted = Compensated(step=0.8, rate_weight=0.5).fit(weight, context)
    error = fitted.decode() - weight
    halves = [output_error(moments, np.where((np.arange(10) < 5) == h, error, 0)) for h in (1, 0)]
    assert halves[0] < 0.5 * halves[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    import ml_dtypes

    kind = np.dtype(np.float16) if dtype == "float16" else np.dtype(ml_dtypes.bfloat16)
    weight = normal(12, 10).astype(kind)
    fitted = Compensated(step=0.1).fit(weight, FitContext(moments=moments_for(MATMUL)))
    assert fitted.decode().dtype == kind
    np.testing.assert_allclose(fitted.decode().astype(float), weight.astype(float), atol=0.6)


@pytest.mark.parametrize(
    "weight", [np.zeros((12, 10)), np.full((12, 10), 3.0), np.eye(12, 10) * 1e-30]
)
def test_degenerate_weights(weight: np.ndarray) -> None:
    moments = moments_for(MATMUL)
    fitted = Compensated(relative_step=0.5).fit(
        weight.astype(np.float32), FitContext(moments=moments)
    )
    assert np.isfinite(fitted.decode()).all()
    assert fitted.shape == (12, 10)


def test_inputs_that_are_zero_or_few() -> None:
    weight = normal(12, 10)
    none = Moments(np.zeros((1, 12, 12), np.float32), np.zeros((1, 12), np.float32), 5.0, MATMUL)
    fitted = Compensated(step=0.5, rate_weight=0).fit(weight, FitContext(moments=none))
    np.testing.assert_array_equal(fitted.symbols, np.rint(weight / 0.5))
    few = moments_for(MATMUL, rows=2)
    fitted = Compensated(step=0.5, damping=0.0).fit(weight, FitContext(moments=few))
    assert np.isfinite(fitted.decode()).all()
    fitted = Compensated(step=0.5).fit(weight, FitContext(moments=few))
    assert np.abs(fitted.decode() - weight).max() < 5


def test_factors_of_the_moments() -> None:
    inputs = moments_for(MATMUL).inputs[0]
    found = feedback_of(inputs, 0.0)
    upper = np.linalg.cholesky(np.linalg.inv(inputs[np.ix_(found.order, found.order)])).T
    np.testing.assert_allclose(found.costs, 1 / np.square(np.diag(upper)), rtol=1e-2)
    np.testing.assert_allclose(
        found.coupling, -upper / np.diag(upper)[:, None], rtol=1e-2, atol=1e-3
    )
    assert (np.diff(np.diag(inputs)[found.order]) <= 0).all()


def test_one_weight_and_one_row() -> None:
    layout = MatrixLayout((0, 1), (1, 1), (), (0,), (1,))
    moments = Moments(np.ones((1, 1, 1), np.float32), np.ones((1, 1), np.float32), 1.0, layout)
    fitted = Compensated(step=0.25).fit(
        np.full((1, 1), 0.5, np.float32), FitContext(moments=moments)
    )
    assert fitted.decode().item() == 0.5


def test_fits_repeat() -> None:
    context = FitContext(moments=moments_for(MATMUL))
    first, again = (Compensated(step=0.4).fit(normal(12, 10), context) for _ in range(2))
    np.testing.assert_array_equal(first.symbols, again.symbols)


def test_without_moments_it_says_so() -> None:
    remarks: list[str] = []
    Compensated(step=0.4).fit(normal(12, 10), FitContext(remarks=remarks))
    assert len(remarks) == 1 and "nothing known of its inputs" in remarks[0]
    Compensated(step=0.4).fit(
        normal(12, 10), FitContext(moments=RowUse(np.ones(12)), remarks=remarks)
    )
    assert len(remarks) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of step and relative_step"),
        ({"step": 1.0, "relative_step": 1.0}, "exactly one"),
        ({"step": -1.0}, "positive and finite"),
        ({"step": 1.0, "rate_weight": -1.0}, "rate_weight"),
        ({"step": 1.0, "rounds": 0}, "rounds must be 1 to 8"),
        ({"step": 1.0, "sweeps": 17}, "sweeps must be 0 to 16"),
        ({"step": 1.0, "damping": np.nan}, "damping must be 0 to 1"),
    ],
)
def test_options_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(SchemeError, match=f"compensated: .*{message}"):
        Compensated(**options)  # type: ignore[arg-type]


def test_what_does_not_fit_is_an_error() -> None:
    moments = moments_for(MATMUL)
    with pytest.raises(SchemeError, match="do not belong to one of"):
        Compensated(step=1.0).fit(normal(11, 10), FitContext(moments=moments))
    with pytest.raises(SchemeError, match="more than 16 bits"):
        Compensated(step=1e-6).fit(normal(12, 10), FitContext(moments=moments))
    with pytest.raises(SchemeError, match="empty"):
        Compensated(step=1.0).fit(np.zeros((0, 3), np.float32))
    with pytest.raises(SchemeError, match="NaN"):
        Compensated(step=1.0).fit(
            np.full((12, 10), np.nan, np.float32), FitContext(moments=moments)
        )


def test_arguments_of_the_inner_loop_are_checked() -> None:
    symbols, square = np.zeros(6, np.int16), np.zeros((2, 2), np.float32)
    targets, ones = np.zeros((2, 3), np.float32), np.ones(2, np.float32)
    for places, stride in (([0, 4], 1), ([0, 3], 2), ([-1, 3], 1), ([0, 3], 0)):
        with pytest.raises(CodecError):
            round_features(symbols, targets, square, ones, np.array(places), stride=stride)
    with pytest.raises(CodecError, match="coupling is"):
        round_features(symbols, targets, square[:1], ones, np.array([0, 3]), stride=1)
    rates = SymbolRates(np.zeros((1, 1, 5), np.int16))
    with pytest.raises(CodecError):
        round_features(symbols, targets, square, ones, np.array([0, 3]), stride=1, rates=rates)
    with pytest.raises(CodecError, match="6 symbols, expected 5"):
        rates.total(symbols)
    with pytest.raises(CodecError, match="expected int16"):
        SymbolRates(np.zeros((2, 2), np.int16))
