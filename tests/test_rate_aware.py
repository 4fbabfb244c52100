# SPDX-License-Identifier: Apache-2.0
"""The rate-aware compression step: no step of a fine search is better, and a bit has one price."""

from __future__ import annotations

import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import (
    FitContext,
    Prune,
    RateAware,
    RateDistortion,
    Trellis,
    UniformParameters,
)
from passes.schemes.trellis import TrellisParameters


def laplace(count: int = 20_000, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).laplace(0, 0.05, count)
    return values.reshape(100, -1).astype(np.float32)


@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("price", [1e-3, 3e-2, 0.3])
def test_no_step_is_better(price: float, trellis: bool) -> None:
    """``price``: of a bit, in variances of the weight, at mu 2."""
    weight = laplace()
    scheme = RateAware(beta=price * float(weight.var()), trellis=trellis)
    context = FitContext(mu=2.0)
    fitted = scheme.fit(weight, context)
    costs = []
    for step in float(weight.std()) * np.exp2(np.arange(-7, 4, 0.1)):
        rate_weight = 2 * scheme.beta / (context.mu * step**2)
        other = (
            Trellis(step=step, rate_weight=rate_weight)
            if trellis
            else RateDistortion(step=step, rate_weight=rate_weight)
        )
        costs.append(scheme.cost(weight, other.fit(weight), context))
    assert scheme.cost(weight, fitted, context) <= min(costs) * 1.003
    assert isinstance(fitted, TrellisParameters if trellis else UniformParameters)


def test_at_high_rate_the_step_is_that_of_theory() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (200, 100)).astype(np.float32)
    fitted = RateAware(beta=1e-5).fit(weight, FitContext(mu=1.0))
    assert isinstance(fitted, UniformParameters)
    assert float(fitted.scale) == pytest.approx(np.sqrt(12e-5 / np.log(2)), rel=0.1)


def test_the_price_is_what_a_bit_saves_and_mu_scales_it() -> None:
    """Twice mu and twice beta is the same; dearer bits are fewer; at last all weights are zero."""
    weight = laplace()
    one = RateAware(beta=1e-4).fit(weight, FitContext(mu=1.0)).decode()
    np.testing.assert_array_equal(
        one, RateAware(beta=2e-4).fit(weight, FitContext(mu=2.0)).decode()
    )
    bits = [RateAware(beta=b).fit(weight, FitContext(mu=1.0)).bits() for b in (1e-5, 1e-4, 1e-3)]
    assert bits[0] > bits[1] > bits[2]
    assert not RateAware(beta=1e3).fit(weight, FitContext(mu=1.0)).decode().any()


def test_without_mu_the_weight_is_kept() -> None:
    weight = laplace()
    decoded = RateAware(beta=1.0).fit(weight, FitContext(mu=0.0)).decode()
    assert np.abs(decoded - weight).max() < 0.01 * weight.std()


def test_a_previous_step_is_no_worse_start() -> None:
    weight = laplace()
    scheme, context = RateAware(beta=1e-4), FitContext(mu=1.0)
    first = scheme.fit(weight, context)
    again = scheme.fit(weight, FitContext(mu=1.0, previous=first))
    assert scheme.cost(weight, again, context) <= scheme.cost(weight, first, context)


def test_masks_importance_and_nesting() -> None:
    weight = laplace()
    mask = np.random.default_rng(1).random(weight.shape) < 0.3
    fitted = RateAware(beta=1e-4).fit(weight, FitContext(mu=1.0, mask=mask))
    assert not fitted.decode()[~mask].any()
    pruned = Prune(sparsity=0.8, inner=RateAware(beta=1e-4)).fit(weight, FitContext(mu=1.0))
    assert (pruned.decode() == 0).mean() >= 0.8
    dear = RateAware(beta=1e-4).fit(weight, FitContext(mu=1.0, importance=np.float64(100.0)))
    plain = RateAware(beta=1e-6).fit(weight, FitContext(mu=1.0))
    np.testing.assert_array_equal(dear.decode(), plain.decode())


def test_zeros_and_wrong_options() -> None:
    assert not RateAware(beta=1.0).fit(np.zeros((3, 4), np.float32)).decode().any()
    with pytest.raises(SchemeError, match="beta must be positive"):
        RateAware(beta=0)
    with pytest.raises(SchemeError, match="rounds must be 1 to 8"):
        RateAware(beta=1, rounds=9)
    with pytest.raises(SchemeError, match="NaN|finite"):
        RateAware(beta=1).fit(np.array([np.nan], np.float32))
