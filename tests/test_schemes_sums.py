# SPDX-License-Identifier: Apache-2.0
"""Sums of parts: the error never rises and is never above that of the best single part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import Codebook, FitContext, LowRank, Parameters, Scheme, Sum, Uniform
from tests.passes_models import normal


@dataclass(frozen=True)
class Largest:
    """A sparse part: the largest magnitudes, quantised finely."""

    fraction: float

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        size = np.abs(weight)
        kept = size >= np.quantile(size, 1 - self.fraction)
        return Uniform(bits=8).fit(np.where(kept, weight, np.zeros((), weight.dtype)))


def heavy(*shape: int, seed: int = 0) -> np.ndarray:
    """Values with outliers and a part of low rank."""
    rng = np.random.default_rng(seed)
    flat = rng.standard_t(3, size=shape)
    left, right = rng.standard_normal((shape[0], 2)), rng.standard_normal((2, shape[1]))
    return (flat + 2 * left @ right).astype(np.float32)


PARTS: list[tuple[Scheme, ...]] = [
    (Uniform(bits=2), Largest(0.02)),
    (Codebook(entries=3), Largest(0.02)),
    (LowRank(rank=2, inner=Uniform(bits=8)), Uniform(bits=2)),
    (Uniform(bits=2), Largest(0.02), LowRank(rank=2, inner=Uniform(bits=8))),
    (Uniform(bits=2), Largest(0.02), LowRank(rank=1), Codebook(entries=2)),
]


@pytest.mark.parametrize("parts", PARTS)
def test_the_error_falls_and_beats_every_single_part(parts: tuple[Scheme, ...]) -> None:
    weight = heavy(40, 30)
    fitted, errors = Sum(parts, tolerance=0).fit_with_errors(weight)
    assert all(b <= a for a, b in zip(errors, errors[1:], strict=False))
    found = float(np.sum((weight - fitted.decode()).astype(np.float64) ** 2))
    assert found == pytest.approx(errors[-1], rel=1e-6)
    for part in parts:
        single = np.sum((weight - part.fit(weight).decode()).astype(np.float64) ** 2)
        assert found <= single * (1 + 1e-9)
    assert found < 0.95 * min(
        float(np.sum((weight - part.fit(weight).decode()) ** 2)) for part in parts
    )
    assert fitted.bits() == sum(part.bits() for part in fitted.children())


def test_the_importance_decides() -> None:
    weight, importance = heavy(20, 15), np.ones((20, 15))
    importance[:2] = 100.0
    scheme = Sum((Uniform(bits=2), LowRank(rank=1, inner=Uniform(bits=8))))

    def first_rows(context: FitContext) -> float:
        return float(np.sum((weight - scheme.fit(weight, context).decode())[:2] ** 2))

    assert first_rows(FitContext(importance=importance)) < first_rows(FitContext())


def test_small_cases_against_every_codebook_and_position() -> None:
    """One outlier and a codebook of two values: the alternation finds what trying all splits
    finds."""
    weight = np.array([[0.0, 1.0, 0.1], [1.1, 7.0, -0.1]], np.float32)
    fitted = Sum((Codebook(entries=2), Largest(1 / 6))).fit(weight)
    found = float(np.sum((weight - fitted.decode()) ** 2))
    flat, best = weight.reshape(-1), np.inf
    for outlier in range(6):
        rest = np.delete(flat, outlier)
        for sides in product((False, True), repeat=5):
            chosen = np.array(sides)
            error = sum(float(np.sum((g - g.mean()) ** 2)) for g in (rest[chosen], rest[~chosen])
                        if g.size)  # fmt: skip
            best = min(best, error)
    assert found <= best * (1 + 1e-3) + 1e-3


def test_degenerate_weights() -> None:
    scheme = Sum((Uniform(bits=3), LowRank(rank=1), Codebook(entries=4)))
    for weight in (np.zeros((4, 3)), np.full((4, 3), 2.0), np.full((1, 1), -1.5)):
        fitted = scheme.fit(weight.astype(np.float32))
        assert fitted.shape == weight.shape and fitted.dtype == np.float32
        np.testing.assert_allclose(fitted.decode(), weight, atol=1e-5)
    assert len(scheme.fit(np.zeros((4, 3), np.float32)).parts) == 1
    half = scheme.fit(normal(6, 5).astype(np.float16))
    assert half.decode().dtype == np.float16
    for bad in (np.zeros((0, 3), np.float32), np.full((2, 2), np.nan, np.float32)):
        with pytest.raises(SchemeError):
            scheme.fit(bad)


@pytest.mark.parametrize(
    "options", [{"parts": ()}, {"iterations": 0}, {"tolerance": -1.0}, {"tolerance": np.nan}]
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(SchemeError, match="sum: "):
        Sum(**{"parts": (Uniform(bits=2),), **options})  # type: ignore[arg-type]


def test_a_previous_fit_is_passed_to_its_part() -> None:
    seen = []

    class Spy:
        """Remembers what it started from."""

        def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
            seen.append(context.previous if context else None)
            return Uniform(bits=2).fit(weight)

    scheme = Sum((Spy(), Largest(0.05)))
    first = scheme.fit(heavy(20, 15))
    seen.clear()
    scheme.fit(heavy(20, 15), FitContext(previous=first))
    assert seen[0] is first.parts[0]
