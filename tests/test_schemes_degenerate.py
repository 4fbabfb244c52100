# SPDX-License-Identifier: Apache-2.0
"""Every scheme that a recipe can name, on weights with nothing in them: a defined result each."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from passes.errors import SchemeError
from passes.schemes import Parameters
from passes.stages import SCHEMES, scheme_of
from tests.passes_models import normal

UNIFORM: list[Any] = [{"uniform": {"bits": 4}}]
STAGES: dict[str, list[Any]] = {
    "uniform": UNIFORM,
    "scaled": [{"scaled": {"scaling": "absmax"}}, {"points": {"values": [-1, 0, 1]}}],
    "fixed_point": [{"fixed_point": {"integer_bits": 3, "fraction_bits": 4}}],
    "power_of_two": [{"power_of_two": {"bits": 4}}],
    "binary": ["binary"],
    "ternary": ["ternary"],
    "trellis": [{"trellis": {"bits": 6}}],
    "rate_distortion": [{"rate_distortion": {"relative_step": 0.2}}],
    "compensated": [{"compensated": {"relative_step": 0.2}}],
    "rate_aware": [{"rate_aware": {"beta": 1e-3}}],
    "compensated_trellis": [{"compensated_trellis": {"relative_step": 0.2}}],
    "latent": ["latent"],
    "learned_points": [{"learned_points": {"count": 16}}],
    "codebook": [{"codebook": {"entries": 16}}],
    "points": [{"points": {"values": [-2, 0, 2]}}],
    "lossless": ["lossless"],
    "low_rank": [{"low_rank": {"rank": 1}}, "lossless"],
    "tucker": [{"tucker": {"energy": 0.9}}, "lossless"],
    "transform": [{"transform": {"kind": "dct"}}, *UNIFORM],
    "auto_transform": ["auto_transform", *UNIFORM],
    "sum": [{"sum": {"parts": [UNIFORM, [{"prune": {"fraction": 0.1}}, "lossless"]]}}],
    "prune": [{"prune": {"fraction": 0.5}}, *UNIFORM],
}
IDEMPOTENT = (
    "uniform", "fixed_point", "power_of_two", "binary", "ternary", "codebook", "points",
    "lossless", "low_rank", "prune",
)  # fmt: skip
"""Projections: what they decode to is fitted by itself."""
OF_BASES = ("cosine_rows",)
"""Stand for matrices of cosines, and are fitted by training only: see the tests of toolkit.nn."""
OF_MATRICES = ("low_rank", "tucker")
SHAPES = [(), (1,), (7,), (1, 1), (5, 1), (4, 6), (2, 3, 3, 3)]


def test_every_scheme_is_here() -> None:
    assert set(STAGES) | set(OF_BASES) == set(SCHEMES)


def fitted(name: str, weight: np.ndarray) -> Parameters:
    return scheme_of(STAGES[name]).fit(weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("value", [0.0, -2.0])
@pytest.mark.parametrize("name", STAGES)
def test_constant_weights(name: str, value: float, shape: tuple[int, ...], dtype: Any) -> None:
    """Also one element, fewer values than centroids, and ranks of 0 and 1."""
    weight = np.full(shape, value).astype(dtype)
    if name in OF_MATRICES and len(shape) < 2:
        with pytest.raises(SchemeError, match="has no two"):
            fitted(name, weight)
        return
    if name == "transform" and not shape:
        with pytest.raises(SchemeError, match="no axes"):
            fitted(name, weight)
        return
    found = fitted(name, weight)
    decoded = found.decode()
    assert decoded.shape == shape == found.shape and decoded.dtype == weight.dtype
    assert np.isfinite(decoded.astype(np.float64)).all()
    assert np.isfinite(found.bits()) and found.bits() >= 0
    if value == 0:
        assert not decoded.any()
    elif name != "prune":  # which takes half of it away
        np.testing.assert_allclose(decoded.astype(np.float64), value, rtol=0.15)


@pytest.mark.parametrize("name", IDEMPOTENT)
def test_projections_are_idempotent(name: str) -> None:
    decoded = fitted(name, normal(12, 8)).decode()
    again = fitted(name, decoded).decode()
    np.testing.assert_allclose(again, decoded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", [[], [[]], [1.0, np.nan], [[np.inf, 0.0]]], ids=str)
@pytest.mark.parametrize("name", STAGES)
def test_what_is_empty_or_not_finite_is_refused(name: str, values: list[Any]) -> None:
    weight = np.array(values, np.float32)
    if name == "lossless" and weight.size:
        np.testing.assert_array_equal(fitted(name, weight).decode(), weight)
        return
    with pytest.raises(SchemeError):
        fitted(name, weight)
