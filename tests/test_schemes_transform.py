# SPDX-License-Identifier: Apache-2.0
"""Transform domain on arrays: bases against SciPy, NumPy and PyWavelets; exact inverse; what is
kept; steps per frequency; degenerate inputs."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import pywt
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.errors import SchemeError
from passes.schemes import Codebook, FitContext, Lossless, Transform, TransformParameters, Uniform
from passes.schemes.transform_basis import BASIS_BITS, stages_of
from passes.schemes.transform_fold import folding_of
from passes.schemes.transform_keep import kept_by_energy, kept_by_number
from passes.schemes.transform_kinds import analysis, is_orthonormal, synthesis
from passes.schemes.transform_steps import water_filling, water_level
from tests.passes_models import normal

ORTHONORMAL = ("dct", "dst", "dft", "haar", "db2", "db4", "sym5", "coif1", "db38")
BIORTHOGONAL = ("bior4.4", "rbio2.2", "dmey")
SIZES = (1, 2, 3, 5, 8, 31, 64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ORTHONORMAL)
def test_bases_are_orthonormal(kind: str, size: int) -> None:
    assert is_orthonormal(kind)
    matrix = synthesis(kind, size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_against_scipy_and_numpy(size: int) -> None:
    values = np.random.default_rng(0).standard_normal((4, size))
    for kind, function in (("dct", scipy.fft.dct), ("dst", scipy.fft.dst)):
        expected = function(values, type=2, norm="ortho")
        np.testing.assert_allclose(values @ analysis(kind, size), expected, atol=1e-12)
    spectrum = np.fft.rfft(values, norm="ortho")
    twice = np.array([1.0 if 2 * k % size == 0 else np.sqrt(2) for k in range(size // 2 + 1)])
    imaginary = (spectrum.imag * twice)[:, 1 : (size + 1) // 2]
    stacked = np.concatenate((spectrum.real * twice, imaginary), axis=1)
    np.testing.assert_allclose(values @ analysis("dft", size), stacked, atol=1e-12)


@pytest.mark.parametrize("kind", ["haar", "db4", "sym5", "bior4.4", "rbio3.1", "db20"])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.filterwarnings("ignore:Level value")
def test_wavelets_are_those_of_pywavelets(kind: str, levels: int) -> None:
    values = np.random.default_rng(0).standard_normal(32)
    expected = np.concatenate(pywt.wavedec(values, kind, mode="periodization", level=levels))
    np.testing.assert_allclose(values @ analysis(kind, 32, levels), expected, atol=1e-10)


def test_every_wavelet_of_pywavelets_has_an_inverse() -> None:
    for kind in pywt.wavelist(kind="discrete"):
        matrix = synthesis(kind, 12)
        assert is_orthonormal(kind) <= bool(np.allclose(matrix @ matrix.T, np.eye(12), atol=1e-8))
        np.testing.assert_allclose(analysis(kind, 12) @ matrix, np.eye(12), atol=1e-8)


@pytest.mark.parametrize("kind", [*ORTHONORMAL, *BIORTHOGONAL])
def test_integer_bases_are_bounded_and_near(kind: str) -> None:
    for stage in stages_of(kind, (8, 3, 64), None):
        matrix = np.ones((1, 1))
        for size in stage.sizes:
            matrix = np.kron(matrix, synthesis(kind, size))
        assert np.array_equal(stage.basis, np.rint(stage.basis))
        assert np.abs(stage.basis - matrix * 2.0**stage.shift).max() <= 0.5 + 1e-6
        assert np.sqrt(np.square(stage.basis).sum(0).max()) <= 2**BASIS_BITS * 1.001


KINDS = st.sampled_from(("dct", "dst", "dft", "haar", "db3", "bior2.2"))
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@settings(max_examples=120, deadline=None)
@given(KINDS, SHAPES, st.data())
def test_lossless_coefficients_give_the_weight_back(
    kind: str, shape: tuple[int, ...], data: st.DataObject
) -> None:
    rank = len(shape)
    axes = data.draw(
        st.none() | st.lists(st.integers(0, rank - 1), min_size=1, unique=True).map(tuple)
    )
    block = data.draw(st.none() | st.integers(0, 4))
    scale = data.draw(st.sampled_from((1e-20, 1e-3, 1.0, 1e6, 1e30)))
    weight = normal(*shape, seed=data.draw(st.integers(0, 99))) * np.float32(scale)
    fitted = Transform(kind, axes, block, inner=Lossless()).fit(weight)
    decoded = fitted.decode()
    assert decoded.shape == shape == fitted.shape and decoded.dtype == np.float32
    # Round-off of coefficients grows on the way back where the basis is not orthonormal.
    error = 1e-6 if is_orthonormal(kind) else 4e-6
    np.testing.assert_allclose(decoded, weight, rtol=0, atol=error * float(np.abs(weight).max()))


def test_lossless_coefficients_of_a_real_kernel_size() -> None:
    weight = normal(32, 16, 64, 1)
    for kind in ("dct", "dst", "dft", "haar", "db4"):
        decoded = Transform(kind, inner=Lossless()).fit(weight).decode()
        assert np.linalg.norm(decoded - weight) <= 2e-7 * np.linalg.norm(weight)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ORTHONORMAL), SHAPES)
def test_parseval(kind: str, shape: tuple[int, ...]) -> None:
    weight = normal(*shape, seed=1)
    scheme = Transform(kind, tuple(range(len(shape))), inner=Lossless())
    coefficients = scheme.fit(weight).coefficients()
    assert np.isclose(np.square(coefficients).sum(), np.square(weight).sum(), rtol=1e-5)
    coarse = Transform(kind, tuple(range(len(shape))), inner=Uniform(step=0.5)).fit(weight)
    error = np.square(coarse.decode() - weight).sum()
    assert np.isclose(error, np.square(coarse.coefficients() - coefficients).sum(), 1e-4, 1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    kind = ir.DataType.BFLOAT16.numpy() if dtype == "bfloat16" else np.dtype(dtype)
    weight = normal(6, 20).astype(kind)
    decoded = Transform(inner=Lossless()).fit(weight).decode()
    assert decoded.dtype == kind and np.array_equal(decoded, weight)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.floats(0, 1))
def test_keep_by_energy_is_minimal(values: list[int], energy: float) -> None:
    magnitudes = np.abs(np.array(values, np.float64))
    kept = kept_by_energy(magnitudes, energy)
    squares = np.square(magnitudes)
    wanted = energy * squares.sum()
    assert squares[kept].sum() >= wanted * (1 - 1e-12)
    number = int(kept.sum())
    for smaller in combinations(range(len(values)), max(number - 1, 0)):
        assert number == 0 or squares[list(smaller)].sum() < wanted or wanted == 0
    if number:
        assert squares.sum() > 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.integers(0, 9))
def test_keep_by_number_is_the_best_approximation(values: list[int], number: int) -> None:
    array = np.array(values, np.float64)
    kept = kept_by_number(np.abs(array), number)
    assert kept.sum() == min(number, array.size)
    best = min(
        float(np.square(np.delete(array, list(c))).sum())
        for c in combinations(range(array.size), int(kept.sum()))
    )
    assert np.square(array[~kept]).sum() == best


def test_kept_coefficients_of_a_weight() -> None:
    weight = normal(8, 4, 16)
    for options, number in (
        ({"keep_number": 20}, 20),
        ({"keep_number": 10**6}, weight.size),
        ({"keep_number": 0}, 0),
        ({"keep_energy": 1.0}, weight.size),
        ({"keep_energy": 0.0}, 0),
    ):
        given_options: dict[str, Any] = options
        fitted = Transform(inner=Lossless(), **given_options).fit(weight)
        assert np.count_nonzero(fitted.coefficients()) == number
        again = Transform(inner=Lossless(), **given_options).fit(fitted.decode())
        np.testing.assert_allclose(again.decode(), fitted.decode(), rtol=0, atol=1e-6)
    fitted = Transform(inner=Lossless(), keep_threshold=1.5).fit(weight)
    kept = fitted.coefficients()[fitted.coefficients() != 0]
    assert 0 < kept.size < weight.size and np.abs(kept).min() >= 1.4999


@pytest.mark.parametrize("kind", ["dct", "dst", "dft", "haar", "db4"])
@pytest.mark.parametrize("options", [{"inner": Uniform(step=0.25)}, {"step": 0.25}], ids=str)
def test_quantisation_is_idempotent(kind: str, options: dict[str, Any]) -> None:
    fitted = Transform(kind, axes=(0, 1), block=8, **options).fit(normal(16, 24))
    again = Transform(kind, axes=(0, 1), block=8, inner=Uniform(step=0.25)).fit(fitted.decode())
    assert again.decode().tobytes() == fitted.decode().tobytes()


def test_quantisation_is_the_projection_on_the_lattice() -> None:
    """No lattice point next to the one chosen is nearer."""
    weight = normal(1, 4)
    fitted = Transform("dct", inner=Uniform(step=0.5)).fit(weight)
    found = np.square(fitted.decode() - weight).sum()
    basis = synthesis("dct", 4)
    for offset in np.ndindex(3, 3, 3, 3):
        coefficients = fitted.coefficients() + 0.5 * (np.array(offset) - 1)
        assert np.square(coefficients @ basis - weight).sum() >= found - 1e-5


@pytest.mark.parametrize("kind", ["dct", "dst", "dft", "haar", "db4", "bior4.4"])
def test_zero_and_constant(kind: str) -> None:
    for shape in ((1,), (7,), (3, 5), (4, 2, 3, 3)):
        for inner in (Uniform(bits=8), Uniform(relative_step=0.1), Codebook(4), Lossless()):
            zero = Transform(kind, inner=inner).fit(np.zeros(shape, np.float32)).decode()
            assert zero.tobytes() == np.zeros(shape, np.float32).tobytes()
        constant = np.full(shape, 3.5, np.float32)
        decoded = Transform(kind, inner=Lossless()).fit(constant).decode()
        np.testing.assert_allclose(decoded, constant, rtol=1e-6)
    for options in ({"rate": 2.0}, {"step": 0.1}, {"relative_step": 0.1}):
        given_options: dict[str, Any] = options
        fitted = Transform(kind, **given_options).fit(np.zeros((3, 5), np.float32))
        assert not fitted.decode().any() and fitted.bits() >= 0


def test_folding_takes_blocks_that_divide() -> None:
    folding = folding_of((30, 48), (0, 1), 8)
    assert folding.sizes == (6, 8) and folding.folded_shape == (5, 6, 48)
    array = np.arange(30 * 48).reshape(30, 48)
    assert np.array_equal(folding.fold(array)[2, 3].reshape(6, 8), array[12:18, 24:32])
    assert np.array_equal(folding.unfold(folding.fold(array)), array)
    assert folding_of((31,), None, 8).sizes == (31,)
    assert folding_of((4, 5, 3, 2), None, None).axes == (2, 3)
    assert folding_of((6, 128), (1,), (64,)).folded_shape == (6, 2, 64)


def test_water_level_meets_the_rate() -> None:
    variances = np.array([4.0, 1.0, 0.25, 0.0])
    for rate in (0.1, 0.5, 2.0, 6.0):
        level = water_level(variances, rate)
        rates = np.maximum(0, 0.5 * np.log2(np.maximum(variances, 1e-300) / level))
        assert np.isclose(rates.mean(), rate, rtol=1e-6)
    assert water_level(np.zeros(3), 1.0) == 0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0.01, 10), min_size=2, max_size=2),
    st.lists(st.floats(0.1, 10), min_size=2, max_size=2),
    st.floats(0.2, 4),
)
def test_water_filling_is_optimal(
    variances: list[float], weights: list[float], rate: float
) -> None:
    """No other split of the rate between two components has a smaller weighted distortion."""
    v, g = np.array(variances), np.array(weights)
    steps = water_filling(v, g, rate=rate)
    found = (g * np.where(steps > 0, steps**2 / 12, v)).sum()
    first = np.linspace(0, 2 * rate, 401)
    split = g[0] * v[0] * 4.0**-first + g[1] * v[1] * 4.0 ** -(2 * rate - first)
    assert found <= split.min() * (1 + 1e-6)


def test_steps_per_frequency() -> None:
    weight = normal(40, 30, 8) * np.exp(-np.arange(8, dtype=np.float32))
    fitted = Transform("dct", step=0.2).fit(weight)
    assert fitted.steps is not None and set(fitted.steps.tolist()) <= {0.0, np.float32(0.2)}
    table = (0.1, 0.2, 0.3, 0.0, 0.1, 0.2, 0.3, 0.4)
    given_table = Transform("dct", steps=table).fit(weight)
    units = given_table.coefficients() / np.where(np.array(table) > 0, table, 1.0)
    np.testing.assert_allclose(units, np.rint(units), atol=1e-4)
    assert not units[..., 3].any()
    sensitive = Transform("dct", step=0.01, sensitivity=(4, 1, 1, 1, 1, 1, 1, 1)).fit(weight)
    assert sensitive.steps is not None
    assert np.isclose(sensitive.steps[1] / sensitive.steps[0], 2)


def test_importance_makes_finer_steps_where_it_counts() -> None:
    weight = normal(64, 16)
    importance = np.ones(16)
    importance[:4] = 16
    context = FitContext(importance=importance)
    fitted = Transform("haar", levels=1, step=0.01).fit(weight, context)
    assert fitted.steps is not None
    np.testing.assert_allclose(fitted.steps[[2, 8, 15]] / fitted.steps[0], [4, 1, 4], rtol=1e-5)


@pytest.mark.parametrize("axis", [None, 0])
def test_a_mask_stays_exactly_zero(axis: int | None) -> None:
    weight = normal(8, 6, 16)
    mask = np.random.default_rng(1).random(weight.shape) < 0.5
    if axis == 0:  # whole filters: their coefficients are pruned, and no mask is stored
        mask = np.broadcast_to(np.arange(8)[:, None, None] % 2 > 0, weight.shape)
    fitted = Transform(inner=Uniform(step=0.1)).fit(weight * mask, FitContext(mask=mask))
    decoded = fitted.decode()
    assert not decoded[~mask].any() and decoded[mask].any()
    assert (fitted.mask is None) == (axis == 0)
    full = Transform(inner=Uniform(step=0.1)).fit(weight, FitContext(mask=np.ones_like(mask)))
    assert full.mask is None


def test_nesting_and_warm_start() -> None:
    weight = normal(12, 10, 16)
    scheme = Transform(inner=Transform("haar", axes=(1,), inner=Uniform(step=0.2)))
    fitted = scheme.fit(weight)
    inner = fitted.children()[0]
    assert isinstance(inner, TransformParameters) and inner.kind == "haar"
    assert np.abs(fitted.decode() - weight).max() < 1
    assert fitted.bits() > inner.bits() > inner.children()[0].bits() > 0
    again = scheme.fit(weight, FitContext(previous=fitted, channel_axis=0))
    assert again.decode().tobytes() == fitted.decode().tobytes()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "fft"}, "kind 'fft'"),
        ({}, "give steps or an inner"),
        ({"step": 1.0, "rate": 1.0}, "at most one of steps"),
        ({"step": -1.0}, "step must be positive"),
        ({"steps": (1.0, -1.0)}, "not negative"),
        ({"step": 1.0, "sensitivity": (0.0,)}, "sensitivity"),
        ({"step": 1.0, "levels": 0}, "levels"),
        ({"step": 1.0, "keep_number": 1, "keep_energy": 0.5}, "at most one of keep"),
        ({"step": 1.0, "keep_number": -1}, "keep_number"),
        ({"step": 1.0, "keep_energy": 1.5}, "keep_energy"),
        ({"step": 1.0, "keep_threshold": float("nan")}, "keep_threshold"),
    ],
)
def test_wrong_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemeError, match=text):
        Transform(**options)


@pytest.mark.parametrize(
    ("options", "shape", "text"),
    [
        ({}, (), "no axes"),
        ({}, (0, 3), "empty"),
        ({"axes": (2,)}, (3, 3), "are not axes of rank 2"),
        ({"axes": (1, -1)}, (3, 3), "one axis twice"),
        ({"axes": (0, 1), "block": (2,)}, (3, 3), "1 block sizes for 2 axes"),
        ({}, (2, 4096), "give a block"),
        ({"steps": (1.0,)}, (3, 3), "steps has 1 entries, expected 3"),
        ({"step": 1.0, "sensitivity": (1.0,)}, (3, 3), "sensitivity has 1 entries"),
    ],
)
def test_weights_that_do_not_fit(
    options: dict[str, Any], shape: tuple[int, ...], text: str
) -> None:
    with pytest.raises(SchemeError, match=text):
        Transform(inner=Uniform(step=1.0), **options).fit(np.zeros(shape, np.float32))
    with pytest.raises(SchemeError, match="NaN"):
        Transform(step=1.0).fit(np.array([1, np.nan], np.float32))
