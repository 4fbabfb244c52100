# SPDX-License-Identifier: Apache-2.0
"""Quantisers of single values: feasible, idempotent, optimal, and defined for degenerate inputs."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from passes.errors import SchemeError
from passes.schemes import (
    Binary,
    Codebook,
    FitContext,
    FixedPoint,
    Points,
    PowerOfTwo,
    Scaled,
    Ternary,
    Uniform,
)
from tests.passes_models import normal

BFLOAT16 = ir.DataType.BFLOAT16.numpy()
EXAMPLES = 8
DTYPES = (np.dtype(np.float32), np.dtype(np.float16), BFLOAT16)
PARTITIONS: list[dict[str, Any]] = [
    {},
    {"granularity": "row", "axis": -1},
    {"granularity": "group", "group_size": 4},
    {"granularity": "bucket", "group_size": 7},
]
SCHEMES = [
    *(Uniform(bits=b, **p) for b, p in product((2, 8, 12), PARTITIONS)),
    *(Uniform(bits=b, symmetric=False, **p) for b, p in product((1, 4, 8), PARTITIONS)),
    *(Uniform(bits=b, scaling="linear", **p) for b, p in product((1, 3, 8), PARTITIONS)),
    Uniform(step=0.03),
    Uniform(bits=8, rounding="stochastic"),
    FixedPoint(3, 5),
    FixedPoint(2, 1, rounding="stochastic"),
    FixedPoint(1, 0),
    PowerOfTwo(2),
    PowerOfTwo(5),
    PowerOfTwo(8),
    *(Binary(scaled=s, **p) for s, p in product((False, True), PARTITIONS)),
    *(Ternary(**p) for p in PARTITIONS),
    Points((0.5, -0.25, 3.0)),
    *(Scaled(inner=Points((-1.0, -0.3, 0.0, 0.2, 1.0)), **p) for p in PARTITIONS),
    Scaled(inner=Points((0.0, 0.1, 0.5, 1.0)), scaling="linear", granularity="bucket"),
    Codebook(5),
    Codebook(4, fix_zeros=True),
    Codebook(4, start="density"),
]
WITHOUT_MASK = [s for s in SCHEMES if isinstance(s, Scaled) and s.scaling == "linear"]


def floats(limit: float) -> st.SearchStrategy[float]:
    return st.one_of(
        st.floats(-limit, limit, width=16),
        st.floats(-8, 8, width=16),
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1]),
    )


WEIGHTS = arrays(np.float32, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=floats(6e4))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@given(WEIGHTS, st.sampled_from(DTYPES))
@settings(max_examples=EXAMPLES, deadline=None)
def test_idempotent_finite_and_in_shape(scheme: Any, weight: np.ndarray, dtype: np.dtype) -> None:
    weight = weight.astype(dtype)
    try:
        once = scheme.fit(weight)
    except SchemeError as error:  # only a step can be too small
        assert scheme == Uniform(step=0.03) and "16 bits" in str(error)
        return
    back = once.decode()
    assert back.shape == weight.shape == once.shape and back.dtype == dtype == once.dtype
    assert np.isfinite(back.astype(np.float32)).all() and once.bits() >= 0
    again = scheme.fit(back).decode()
    np.testing.assert_array_equal(again.astype(np.float32), back.astype(np.float32))


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s not in WITHOUT_MASK], ids=str)
def test_pruned_elements_stay_zero(scheme: Any) -> None:
    weight, keep = normal(6, 5, seed=3) + np.float32(2), normal(6, 5, seed=4) > 0
    back = scheme.fit(weight, FitContext(mask=keep)).decode()
    assert not back[~keep].any() and not np.signbit(back[~keep]).any()
    others = np.where(keep, weight, np.float32(7))  # what is pruned decides nothing
    np.testing.assert_array_equal(scheme.fit(others, FitContext(mask=keep)).decode(), back)
    none = scheme.fit(weight, FitContext(mask=np.zeros((6, 5), bool)))
    assert not none.decode().any()
    full = scheme.fit(weight, FitContext(mask=np.ones((6, 5), bool))).decode()
    np.testing.assert_array_equal(full, scheme.fit(weight).decode())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("values", [[], [1.0, np.nan], [-np.inf]])
def test_refuses_empty_and_non_finite(scheme: Any, values: list[float]) -> None:
    with pytest.raises(SchemeError, match="empty|NaN"):
        scheme.fit(np.array(values, np.float32))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 2)])
@pytest.mark.parametrize("value", [0.0, 0.75])
def test_constant_tensors(scheme: Any, shape: tuple[int, ...], value: float) -> None:
    weight = np.full(shape, value, np.float32)
    back = scheme.fit(weight).decode()
    one_value = np.unique(back).size == 1 or isinstance(scheme, FixedPoint)
    assert back.shape == shape and one_value  # unless rounded at random
    if isinstance(scheme, Uniform | Codebook | Ternary) and scheme != Uniform(step=0.03):
        np.testing.assert_allclose(back, weight, rtol=1e-6)


@pytest.mark.parametrize(
    "context",
    [
        FitContext(mask=np.ones((2, 3), bool)),
        FitContext(mask=np.ones((3, 4), np.int8)),
    ],
)
def test_refuses_wrong_masks(context: FitContext) -> None:
    with pytest.raises(SchemeError, match="mask"):
        Uniform(bits=4).fit(normal(3, 4), context)


@pytest.mark.parametrize(
    "importance", [np.zeros((3, 4)), np.full((3, 4), np.nan), np.ones((5, 4)), -np.ones(())]
)
def test_refuses_wrong_importance(importance: np.ndarray) -> None:
    with pytest.raises(SchemeError, match="importance"):
        Codebook(2).fit(normal(3, 4), FitContext(importance=importance))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Uniform, {"step": 1.0, "scaling": "linear"}),
        (Uniform, {"bits": 4, "scaling": "absnorm", "symmetric": False}),
        (Uniform, {"bits": 4, "scaling": "other"}),
        (Uniform, {"bits": 4, "granularity": "column"}),
        (Uniform, {"bits": 4, "rounding": "up"}),
        (Uniform, {"bits": 4, "group_size": 0}),
        (FixedPoint, {"integer_bits": 9, "fraction_bits": 8}),
        (FixedPoint, {"integer_bits": 3, "fraction_bits": -3}),
        (FixedPoint, {"integer_bits": -20, "fraction_bits": 26}),
        (PowerOfTwo, {"bits": 1}),
        (PowerOfTwo, {"bits": 9}),
        (Points, {"values": ()}),
        (Points, {"values": (1.0, float("nan"))}),
        (Binary, {"granularity": "column"}),
        (Ternary, {"group_size": -1}),
        (Scaled, {"scaling": "none"}),
        (Codebook, {"entries": 0}),
        (Codebook, {"entries": 1025}),
        (Codebook, {"start": "median"}),
        (Codebook, {"iterations": 0}),
    ],
)
def test_refuses_wrong_options(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(SchemeError, match=":"):
        make(**options)


def test_refuses_what_only_the_weight_shows() -> None:
    with pytest.raises(SchemeError, match="axis 2"):
        Uniform(bits=4, granularity="row", axis=2).fit(normal(3, 4))
    with pytest.raises(SchemeError, match="float16"):
        Points((1e5,)).fit(normal(3).astype(np.float16))
    with pytest.raises(SchemeError, match="pruned"):
        Scaled(scaling="linear").fit(normal(3), FitContext(mask=np.array([True, False, True])))


@pytest.mark.parametrize(("integer", "fraction"), [(2, 3), (1, 7), (8, 3), (-2, 8), (5, -2)])
def test_fixed_point_is_the_projection_and_saturates(integer: int, fraction: int) -> None:
    half, step = 2 ** (integer + fraction - 1), 2.0**-fraction
    grid = np.arange(-half, half) * step
    edges = np.array([-half - 1, -half - 0.6, -half, half - 1, half, half + 1, 1e6 * half]) * step
    weight = np.concatenate((edges, normal(300) * np.float32(step * half))).astype(np.float32)
    back = FixedPoint(integer, fraction).fit(weight).decode()
    nearest = np.abs(grid[:, None] - weight.astype(np.float64)).min(axis=0)
    assert np.isin(back, grid).all()
    np.testing.assert_array_equal(np.abs(back - weight.astype(np.float64)), nearest)
    np.testing.assert_array_equal(back[:3], [-half * step] * 3)  # no sign flips below the range
    np.testing.assert_array_equal(back[3:7], [(half - 1) * step] * 4)


def test_fixed_point_takes_16_bits_where_8_are_too_few() -> None:
    assert FixedPoint(1, 7).fit(normal(9)).symbols.dtype == np.int8
    assert FixedPoint(4, 12).fit(normal(9)).symbols.dtype == np.int16


@pytest.mark.parametrize("options", PARTITIONS, ids=str)
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12])
def test_linear_range_has_its_points_at_both_ends(bits: int, options: dict[str, Any]) -> None:
    weight = normal(5, 8) + np.float32(3)
    fitted = Uniform(bits=bits, scaling="linear", **options).fit(weight)
    part, back = fitted.partition, fitted.decode()
    assert fitted.zero_point is None and fitted.scale.shape == part.scale_shape
    folded = part.fold(weight)
    low, high = folded.min(axis=(0, 2)), folded.max(axis=(0, 2))
    np.testing.assert_allclose(part.fold(back).min(axis=(0, 2)), low, rtol=1e-6)
    np.testing.assert_allclose(part.fold(back).max(axis=(0, 2)), high, rtol=1e-6)
    levels = (part.fold(back) - low[:, None]) / (high - low)[:, None] * (2**bits - 1)
    np.testing.assert_allclose(levels, np.rint(levels), atol=2e-2)
    half = ((high - low) / (2**bits - 1) / 2)[:, None]
    assert (np.abs(part.fold(back) - folded) <= half * 1.001 + 1e-6).all()


def test_absnorm_divides_the_norm() -> None:
    weight = normal(3, 40)
    fitted = Uniform(bits=6, scaling="absnorm", granularity="row").fit(weight)
    np.testing.assert_allclose(fitted.scale, np.linalg.norm(weight, axis=1) / 31, rtol=1e-6)
    assert (np.abs(fitted.decode() - weight) <= fitted.scale[:, None] * 0.501).all()


def test_buckets_are_flat_and_the_last_is_shorter() -> None:
    weight = normal(3, 100)
    fitted = Uniform(bits=8, granularity="bucket", group_size=64).fit(weight)
    parts = np.split(weight.reshape(-1), [64, 128, 192, 256])
    np.testing.assert_allclose(fitted.scale, [np.abs(p).max() / 127 for p in parts], rtol=1e-6)
    assert Uniform(bits=8, granularity="bucket").fit(weight).scale.shape == (2,)
    assert Uniform(bits=8, granularity="bucket", group_size=300).fit(weight).scale.shape == ()


def test_row_scales_follow_the_channel_axis_of_the_context() -> None:
    fitted = Uniform(bits=8, granularity="row").fit(normal(3, 5), FitContext(channel_axis=1))
    assert fitted.axis == 1 and fitted.scale.shape == (5,)


@pytest.mark.parametrize(
    "scheme",
    [
        Uniform(bits=3, rounding="stochastic"),
        Uniform(bits=3, scaling="linear", rounding="stochastic"),
        Uniform(bits=3, scaling="absnorm", rounding="stochastic"),
        Uniform(step=0.7, rounding="stochastic"),
        FixedPoint(5, 0, rounding="stochastic"),
    ],
    ids=str,
)
def test_stochastic_rounding_is_unbiased_and_seeded(scheme: Any) -> None:
    weight = np.array([-2.0, -1.23, -0.01, 0.0, 0.4, 1.1, 2.0], np.float32)
    many = np.tile(weight, (4000, 1))
    fitted = scheme.fit(many, FitContext(seed=1))
    back = fitted.decode().astype(np.float64)
    step = float(fitted.scale)
    assert (np.abs(back - many) < step * 1.0001).all()
    # A mean of 4000 values has a deviation of at most step / 2 / sqrt(4000).
    np.testing.assert_allclose(back.mean(axis=0), weight, atol=5 * step / 2 / np.sqrt(4000))
    np.testing.assert_array_equal(scheme.fit(many, FitContext(seed=1)).decode(), back)
    assert (scheme.fit(many, FitContext(seed=2)).decode() != back).any()


@given(arrays(np.float32, st.integers(1, 12), elements=floats(100)), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_binary_and_ternary_are_optimal(
    weight: np.ndarray, weighted: bool, data: st.DataObject
) -> None:
    size = weight.size
    counts = np.ones(size)
    if weighted:
        counts = np.array(data.draw(st.lists(st.integers(1, 9), min_size=size, max_size=size)))
    context = FitContext(importance=counts if weighted else None)
    exact = weight.astype(np.float64)

    def error(back: np.ndarray) -> float:
        return float((counts * (back - exact) ** 2).sum())

    signs = np.where(exact < 0, -1.0, 1.0)
    mean = (counts * np.abs(exact)).sum() / counts.sum()
    slack = 1e-6 * float((counts * exact**2).sum())
    binary = Binary().fit(weight, context).decode()
    assert np.unique(np.abs(binary)).size == 1
    assert error(binary) <= error(signs * mean) + slack
    ternary = Ternary().fit(weight, context).decode()
    assert np.unique(np.abs(ternary[ternary != 0])).size <= 1
    order = np.argsort(-np.abs(exact))
    best = error(np.zeros(size))
    for number in range(1, size + 1):  # every threshold, with its best value
        taken = np.isin(np.arange(size), order[:number])
        c = (counts * np.abs(exact))[taken].sum() / counts[taken].sum()
        best = min(best, error(np.where(taken, signs * c, 0.0)))
    assert error(ternary) <= best + slack


def test_ternary_beats_every_assignment() -> None:
    weight = np.float32([0.9, -0.2, 0.5, 0.05, -1.3, 0.45])
    found = float(((Ternary().fit(weight).decode() - weight) ** 2).sum())
    for signs in product((-1.0, 0.0, 1.0), repeat=6):
        chosen = np.array(signs)
        c = max(chosen @ weight / max(np.abs(chosen).sum(), 1), 0.0)
        assert found <= float(((c * chosen - weight) ** 2).sum()) + 1e-6


def test_plain_binary_is_the_sign() -> None:
    np.testing.assert_array_equal(
        Binary(scaled=False).fit(np.float32([-3, -0.0, 0, 0.1])).decode(), [-1, 1, 1, 1]
    )


def test_binary_rows_have_their_own_value() -> None:
    weight = normal(3, 50) * np.float32([[1], [10], [0]])
    fitted = Binary(granularity="row", axis=0).fit(weight)
    np.testing.assert_allclose(fitted.scale[:2], np.abs(weight).mean(axis=1)[:2], rtol=1e-6)
    assert not fitted.decode()[2].any()


@given(arrays(np.float32, st.integers(1, 8), elements=floats(6e4)), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_powers_of_two_are_the_best_range(weight: np.ndarray, bits: int) -> None:
    back = PowerOfTwo(bits).fit(weight).decode()
    used = np.abs(back[back != 0])
    exponents = np.log2(used)
    np.testing.assert_array_equal(exponents, np.rint(exponents))
    number = 2 ** (bits - 1) - 1
    assert used.size == 0 or exponents.max() - exponents.min() < number
    exact = weight.astype(np.float64)
    best = (exact**2).sum()
    for top in range(-40, 20):
        powers = np.exp2(np.arange(top - number + 1, top + 1.0))
        points = np.concatenate((-powers, [0.0], powers))
        best = min(best, (np.abs(points[:, None] - exact).min(axis=0) ** 2).sum())
    assert ((back - exact) ** 2).sum() <= best * (1 + 1e-9) + 1e-20


def test_powers_of_two_weigh_errors() -> None:
    weight = np.float32([8.0, 1.0])
    heavy = FitContext(importance=np.array([1.0, 1000.0]))
    assert PowerOfTwo(2).fit(weight).decode().tolist() == [8.0, 0.0]
    assert PowerOfTwo(2).fit(weight, heavy).decode().tolist() == [1.0, 1.0]


def test_points_take_the_nearest() -> None:
    rng = np.random.default_rng(0)
    points = tuple(rng.normal(size=300).tolist())
    weight = normal(40, 50)
    fitted = Points(points).fit(weight)
    assert fitted.symbols.dtype == (np.int8 if fitted.codebook.size <= 256 else np.int16)
    rounded = np.float32(points).astype(np.float64)
    nearest = np.abs(rounded[:, None] - weight.reshape(-1)).min(axis=0)
    np.testing.assert_array_equal(
        np.abs(fitted.decode() - weight.astype(np.float64)).reshape(-1), nearest
    )


def test_pruned_zero_is_no_point_for_others() -> None:
    keep = np.array([True, True, False])
    fitted = Points((-1.0, 1.0)).fit(np.float32([0.1, -0.1, 0.1]), FitContext(mask=keep))
    assert fitted.decode().tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("scaling", ["absmax", "linear", "absnorm"])
@pytest.mark.parametrize("options", PARTITIONS, ids=str)
def test_scaled_points(scaling: Any, options: dict[str, Any]) -> None:
    weight, points = normal(5, 8), (0.0, 0.25, 0.5, 1.0)
    fitted = Scaled(inner=Points(points), scaling=scaling, **options).fit(weight)
    part = fitted.partition
    folded = part.fold(weight).astype(np.float64)
    scale = fitted.scale.reshape(-1, 1).astype(np.float64)
    offset = 0.0 if fitted.offset is None else fitted.offset.reshape(-1, 1).astype(np.float64)
    values = np.stack([scale * p + offset + 0 * folded for p in points])
    nearest = np.abs(values - folded).min(axis=0)
    np.testing.assert_allclose(np.abs(part.fold(fitted.decode()) - folded), nearest, atol=1e-6)
    peaks = np.abs(folded).max(axis=(0, 2))
    if scaling == "absmax":
        np.testing.assert_allclose(scale[:, 0], peaks, rtol=1e-6)
    assert fitted.children() == (fitted.inner,) and fitted.bits() > fitted.inner.bits()


def test_scaled_weighs_errors_as_outside() -> None:
    weight = normal(2, 64) * np.float32([[1], [100]])
    scheme = Scaled(inner=Codebook(4), granularity="row", axis=0)
    plain = scheme.fit(weight).decode()
    even = scheme.fit(weight, FitContext(importance=np.ones((2, 64)))).decode()
    assert ((even - weight) ** 2).sum() < ((plain - weight) ** 2).sum()


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_dead_zone_makes_zeros_of_what_lies_near_zero(
    granularity: Literal["tensor", "row"],
) -> None:
    weight = np.random.default_rng(0).standard_normal((8, 500)).astype(np.float32)
    plain = Uniform(relative_step=1.0, granularity=granularity).fit(weight)
    scheme = Uniform(relative_step=1.0, granularity=granularity, dead_zone=0.75)
    found = scheme.fit(weight)
    scale = found.scale.reshape(-1, 1)
    np.testing.assert_array_equal(found.symbols == 0, np.abs(weight) < 0.75 * scale)
    kept = np.abs(weight) >= 0.75 * scale
    np.testing.assert_array_equal(found.symbols[kept], plain.symbols[kept])
    assert found.bits() < plain.bits()
    again = Uniform(step=float(scale[0, 0]), dead_zone=0.75).fit(found.decode()[:1])
    np.testing.assert_array_equal(again.symbols, found.symbols[:1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dead_zone": 0.4}, "dead_zone must be 0.5 to 1"),
        ({"dead_zone": float("nan")}, "dead_zone must be 0.5 to 1"),
        ({"dead_zone": 0.7, "symmetric": False}, "goes with symmetric"),
    ],
)
def test_dead_zone_is_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemeError, match=said):
        Uniform(bits=4, **options)
