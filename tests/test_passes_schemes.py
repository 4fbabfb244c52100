# SPDX-License-Identifier: Apache-2.0
"""Schemes on arrays: round trips, degenerate inputs, and equality with ONNX's own arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.errors import SchemeError
from passes.schemes import Codebook, Lossless, Uniform, bits, decode
from passes.schemes.codebook_parameters import nearest_entry
from passes.schemes.entropy import entropy_bits
from tests.passes_models import normal, proto_of, run

BFLOAT16 = ir.DataType.BFLOAT16.numpy()


@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("number", [2, 4, 8, 12, 16])
def test_error_is_at_most_half_a_step(number: int, symmetric: bool, granularity: str) -> None:
    weight = normal(24, 40) + np.float32(0.3)
    size = 8 if granularity == "group" else None
    scheme = Uniform(bits=number, symmetric=symmetric, granularity=granularity, group_size=size)
    fitted = scheme.fit(weight)
    assert fitted.symbols.dtype == (np.int8 if number <= 8 else np.int16)
    size = {"tensor": 1, "row": 24, "group": 24 * 5}[granularity]
    assert fitted.scale.size == size and fitted.scale.dtype == np.float32
    steps = np.broadcast_to(fitted.scale.reshape(-1, 1), (size, weight.size // size)).reshape(
        weight.shape
    )
    factor = 0.5 if symmetric else 1.0  # rounding of the zero point can clip one end
    assert (np.abs(decode(fitted) - weight) <= steps * (factor + 1e-3)).all()
    assert abs(int(fitted.symbols.min())) <= 2 ** (number - 1)


def test_any_step_is_kept_exactly() -> None:
    fitted = Uniform(step=0.1).fit(normal(50, 50))
    assert fitted.scale == np.float32(0.1)
    wide = Uniform(step=1e-3).fit(normal(50, 50))
    assert wide.symbols.dtype == np.int16


def test_relative_step_follows_each_row() -> None:
    weight = normal(3, 1000) * np.array([[1], [10], [0]], np.float32)
    fitted = Uniform(relative_step=0.5, granularity="row", axis=0).fit(weight)
    rms = np.sqrt(np.mean(np.square(weight, dtype=np.float64), axis=1))
    np.testing.assert_allclose(fitted.scale[:2], 0.5 * rms[:2], rtol=1e-6)
    assert fitted.scale[2] == 1 and not fitted.symbols[2].any()


def test_affine_step_centres_the_range() -> None:
    fitted = Uniform(step=0.01, symmetric=False).fit(normal(100) * np.float32(0.1) + 10)
    assert fitted.zero_point is not None
    assert abs(int(fitted.symbols.max()) + int(fitted.symbols.min())) <= 2


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_row_axis(axis: int) -> None:
    weight = normal(4, 5, 6)
    fitted = Uniform(bits=8, granularity="row", axis=axis).fit(weight)
    assert fitted.scale.shape == (weight.shape[axis],)
    assert np.abs(decode(fitted) - weight).max() <= 0.51 * fitted.scale.max()


def test_group_size_becomes_a_divisor() -> None:
    assert Uniform(bits=4, granularity="group", group_size=32).fit(normal(2, 48)).block_size == 24
    assert Uniform(bits=4, granularity="group", group_size=32).fit(normal(2, 47)).block_size == 47


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_half_types_come_back_in_their_type(dtype: np.dtype) -> None:
    weight = normal(30, 30).astype(dtype)
    fitted = Uniform(bits=8).fit(weight)
    assert decode(fitted).dtype == dtype
    if dtype == np.float16:
        assert fitted.scale.astype(np.float16).astype(np.float32) == fitted.scale


@pytest.mark.parametrize(
    "scheme", [Uniform(bits=4), Uniform(bits=8, symmetric=False), Codebook(16)]
)
@pytest.mark.parametrize("value", [0.0, 1.5, -3.0])
@pytest.mark.parametrize("shape", [(1,), (), (7, 3)])
def test_constant_tensors(scheme: Uniform | Codebook, value: float, shape: tuple[int, ...]) -> None:
    weight = np.full(shape, value, np.float32)
    back = decode(scheme.fit(weight))
    assert back.shape == shape
    np.testing.assert_allclose(back, weight, rtol=1e-6)


@pytest.mark.parametrize("scheme", [Uniform(bits=4), Codebook(4)])
@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf, 0.0]])
def test_refuses_empty_and_non_finite(scheme: Uniform | Codebook, values: list[float]) -> None:
    with pytest.raises(SchemeError, match="empty|NaN"):
        scheme.fit(np.array(values, np.float32))


@pytest.mark.parametrize(
    "options",
    [{}, {"bits": 4, "step": 0.1}, {"bits": 1}, {"bits": 17}, {"step": 0}, {"step": np.nan}],
)
def test_refuses_contradictory_options(options: dict[str, float]) -> None:
    with pytest.raises(SchemeError):
        Uniform(**options)  # type: ignore[arg-type]


def test_refuses_a_step_beyond_16_bits() -> None:
    with pytest.raises(SchemeError, match="16 bits"):
        Uniform(step=1e-6).fit(normal(10))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_decode_equals_dequantize_linear(symmetric: bool, granularity: str) -> None:
    weight = normal(16, 33)
    fitted = Uniform(bits=8, symmetric=symmetric, granularity=granularity).fit(weight)
    tensors = {"s": fitted.scale} | ({} if fitted.zero_point is None else {"z": fitted.zero_point})
    text = f"""< ir_version: 8, opset_import: ["" : 13] >
    g (int8[16,33] q) => (float[16,33] y) {{
      y = DequantizeLinear <axis = 0> (q, {", ".join(tensors)})
    }}"""
    assert np.array_equal(run(proto_of(text, tensors), {"q": fitted.symbols})["y"], decode(fitted))


def test_codebook_beats_uniform_of_as_many_levels() -> None:
    weight = normal(200, 200)
    book = Codebook(16).fit(weight)
    assert (np.diff(book.codebook) > 0).all() and book.codebook.size == 16
    assert np.mean((decode(book) - weight) ** 2) < np.mean(
        (decode(Uniform(bits=4).fit(weight)) - weight) ** 2
    )
    assert book.offset == 8


def test_symbol_0_of_a_codebook_is_what_most_weights_are_else_the_middle() -> None:
    weight = normal(100, 100)
    assert Codebook(8).fit(weight).offset == Codebook(8).fit(-weight).offset == 4
    weight[weight < 0.8] = 0.0
    fitted = Codebook(8).fit(weight)
    assert fitted.codebook[fitted.offset] == 0 and fitted.offset < 4


def test_codebook_is_lloyd_optimal() -> None:
    weight = normal(5000)
    book = Codebook(8).fit(weight)
    indices = nearest_entry(weight, book.codebook)
    means = [weight[indices == i].mean() for i in range(8)]
    np.testing.assert_allclose(book.codebook, means, atol=2e-2)


def test_codebook_of_few_distinct_values_is_exact_and_repeatable() -> None:
    weight = np.random.default_rng(1).choice(np.float32([-1, 0, 0.5, 7]), 1000)
    assert np.array_equal(decode(Codebook(16).fit(weight)), weight)
    wide = normal(3000)
    first, second = Codebook(256).fit(wide), Codebook(256).fit(wide)
    assert np.array_equal(first.symbols, second.symbols) and first.offset == 128


def test_codebook_survives_outliers_that_empty_clusters() -> None:
    weight = np.concatenate((normal(1000) * np.float32(1e-3), np.float32([1e6])))
    book = Codebook(32).fit(weight)
    assert book.codebook[-1] == np.float32(1e6)
    assert np.unique(book.symbols).size > 16


@given(st.integers(1, 300), st.sampled_from(["float32", "float16", "bfloat16", "int8", "uint8"]))
@settings(max_examples=30, deadline=None)
def test_lossless_returns_every_bit(size: int, name: str) -> None:
    dtype = BFLOAT16 if name == "bfloat16" else np.dtype(name)
    data = np.random.default_rng(size).bytes(size * dtype.itemsize)  # NaN, infinities, -0 and all
    weight = np.frombuffer(data, dtype).reshape(1, size)
    back = decode(Lossless().fit(weight))
    assert back.dtype == dtype and back.shape == weight.shape and back.tobytes() == data


def test_lossless_codes_only_planes_that_shrink() -> None:
    assert Lossless().fit(normal(300, 300)).coded == (True, False, False, False)
    rounded = normal(300, 300).astype(np.float16).astype(np.float32)
    assert Lossless().fit(rounded).coded[-1]
    with pytest.raises(SchemeError):
        Lossless().fit(np.zeros(3, np.int64))


def test_bits_estimates() -> None:
    assert entropy_bits(np.zeros(10, np.int8)) == 0
    assert entropy_bits(np.array([0, 1] * 8, np.int8)) == pytest.approx(16)
    weight = normal(100, 100)
    assert bits(Uniform(bits=4).fit(weight)) < bits(Uniform(bits=8).fit(weight)) < 8.1 * weight.size
    assert bits(Lossless().fit(weight)) < 32 * weight.size
    assert bits(Codebook(4).fit(weight)) <= 2 * weight.size + 32 * 4
