# SPDX-License-Identifier: Apache-2.0
"""The GPU's decoding program, run on the host lane by lane, against the oracle."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import CodecError, WideReader, encode_wide
from runtime.gpu_output import Layout, OutputSpec, emulate_decode, emulate_decode_all, plan
from runtime.oracle import decode_matrix
from tests.malformed_corpus import refused_otherwise
from tests.wide_samples import Sample, laplace, laplace16, samples

LAYOUTS: tuple[Layout, ...] = ("direct", "paired", "buckets", "global")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sample", list(samples()), ids=lambda s: s.name)
def test_samples_decode_as_in_the_oracle(sample: Sample, layout: Layout) -> None:
    words = sample.encode()
    reader = WideReader(words)
    if plan(reader, layout=layout).grid == 0:
        pytest.skip(f"{layout} tables do not fit shared memory")
    np.testing.assert_array_equal(emulate_decode_all(reader, layout=layout), decode_matrix(words))
    for index, expected in enumerate(sample.decoded()):
        found = emulate_decode(reader, index, OutputSpec("symbols", expected.shape), layout=layout)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_malformed_blobs_are_refused_with_their_code(layout: Layout) -> None:
    def decode(words: np.ndarray) -> bool:
        reader = WideReader(words)
        if plan(reader, layout=layout).grid == 0:
            return False  # as direct tables these do not fit shared memory
        emulate_decode_all(reader, layout=layout)
        return True

    assert refused_otherwise(decode) == []


SHAPES = [(70, 3, 40), (1, 1, 1), (33, 1, 64), (5, 200, 9), (1, 1, 3000), (64, 1, 512), (40, 1, 16)]


@pytest.mark.parametrize("contexts", ["off", "on"])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_tensors_of_every_shape_class_come_back(dtype: Any, contexts: Any) -> None:
    make = laplace if dtype == np.int8 else laplace16
    tensors = [make(shape, 3 if n % 2 else 30, n) for n, shape in enumerate(SHAPES)]
    tensors[0][::3] //= 4
    for steps in (0, 96):
        reader = WideReader(encode_wide(tensors, steps=steps, contexts=contexts))
        for index, tensor in enumerate(tensors):
            found = emulate_decode(reader, index, OutputSpec("symbols", tensor.shape))
            np.testing.assert_array_equal(found, tensor)


def expected_values(
    tensor: Any, scales: Any, zeros: Any, axis: int, block: int, dtype: Any
) -> np.ndarray:
    """DequantizeLinear in float32, rounded to the type."""
    if scales.size == 1 and not block:
        wide_scales, wide_zeros = scales.reshape(()), None if zeros is None else zeros.reshape(())
    elif block:
        repeat = [np.repeat(v, block, axis) for v in (scales, zeros) if v is not None]
        cut = [np.take(v, range(tensor.shape[axis]), axis) for v in repeat]
        wide_scales, wide_zeros = cut[0], cut[1] if zeros is not None else None
    else:
        shape = [-1 if i == axis else 1 for i in range(tensor.ndim)]
        wide_scales = scales.reshape(shape)
        wide_zeros = None if zeros is None else zeros.reshape(shape)
    integers = tensor.astype(np.int32)
    if wide_zeros is not None:
        integers = integers - wide_zeros.astype(np.int32)
    return (integers.astype(np.float32) * wide_scales.astype(np.float32)).astype(dtype)


CASES: list[tuple[tuple[int, ...], int, int, tuple[int, ...]]] = [
    ((64, 48), 1, 0, ()),
    ((64, 48), 0, 0, (64,)),
    ((64, 48), 1, 0, (48,)),
    ((7, 9, 3, 3), 0, 0, (7,)),
    ((7, 9, 3, 3), 1, 0, (9,)),
    ((7, 9, 3, 3), 3, 0, (3,)),
    ((64, 48), 1, 16, (64, 3)),
    ((50, 48), 0, 16, (4, 48)),
    ((30, 7, 5), 1, 3, (30, 3, 5)),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("zeros", [None, np.int8, np.int16])
@pytest.mark.parametrize(("shape", "axis", "block", "scale_shape"), CASES)
def test_dequantised_values_are_exact(
    shape: Any, axis: int, block: int, scale_shape: Any, zeros: Any, dtype: str
) -> None:
    random = np.random.default_rng(1)
    symbols = laplace((1, shape[0], int(np.prod(shape[1:]))), 9, 5)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    for scale_kind in (np.float32, kind):
        scales = random.uniform(0.001, 0.1, scale_shape).astype(scale_kind)
        zero = None if zeros is None else random.integers(-9, 9, scale_shape).astype(zeros)
        wanted = expected_values(symbols.reshape(shape), scales, zero, axis, block, kind)
        for steps in (0, 50):
            reader = WideReader(encode_wide([symbols], steps=steps))
            spec = OutputSpec(dtype, shape, axis, block)
            found = emulate_decode(reader, 0, spec, scales=scales, zero_points=zero)
            np.testing.assert_array_equal(found.view(kind), wanted)


# Of [64, 160]: one scale, one of each row, each column, each block along the rows and the columns.
WHOLE_CASES: list[tuple[int, int, tuple[int, ...]]] = [
    (0, 0, ()),
    (0, 0, (64,)),
    (1, 0, (160,)),
    (1, 32, (64, 5)),
    (0, 32, (2, 160)),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("symbol_dtype", [np.int8, np.int16])
@pytest.mark.parametrize(("axis", "block", "scale_shape"), WHOLE_CASES)
def test_whole_tiles_are_exact(
    axis: int, block: int, scale_shape: Any, symbol_dtype: Any, dtype: str
) -> None:
    """32 lanes that all have the steps of a tile take 16 bytes at a time (warp_tile.h). Lanes of a
    row or of two; scales at an address that can be read 16 bytes at once or not; zero points of 8,
    16 and 32 bits."""
    random = np.random.default_rng(2)
    shape = 64, 160
    symbols = (laplace if symbol_dtype == np.int8 else laplace16)((1, *shape), 30, 5)
    symbols[0, 0, :8] = np.iinfo(symbol_dtype).min, np.iinfo(symbol_dtype).max, 0, 1, -1, 2, -2, 3
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    for steps in (160, 320):
        reader = WideReader(encode_wide([symbols], steps=steps))
        assert reader.tensors[0].num_lanes >= 32
        for scale_kind in (np.float32, kind):
            room = random.uniform(0.001, 0.1, int(np.prod(scale_shape)) + 1).astype(scale_kind)
            for scales in (room[:-1].reshape(scale_shape), room[1:].reshape(scale_shape)):
                for zero_kind in (None, np.int8, np.int16, np.int32):
                    zero = None
                    if zero_kind is not None:
                        most = np.iinfo(zero_kind).max if zero_kind != np.int32 else 1 << 25
                        zero = random.integers(-most, most, scale_shape).astype(zero_kind)
                    with np.errstate(over="ignore"):  # infinite in float16
                        wanted = expected_values(symbols[0], scales, zero, axis, block, kind)
                    spec = OutputSpec(dtype, shape, axis, block)
                    found = emulate_decode(reader, 0, spec, scales=scales, zero_points=zero)
                    np.testing.assert_array_equal(found.view(kind), wanted)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_whole_tiles_of_looked_up_values_are_exact(dtype: Any, kind: Any) -> None:
    symbols = (laplace if dtype == np.int8 else laplace16)((1, 64, 160), 9, 2)
    codebook = np.sort(np.random.default_rng(0).normal(size=512)).astype(kind)
    reader = WideReader(encode_wide([symbols], steps=160))
    spec = OutputSpec("lookup", (64, 160), offset=256)
    found = emulate_decode(reader, 0, spec, codebook=codebook)
    np.testing.assert_array_equal(found, codebook[symbols[0].astype(int) + 256])
    few = OutputSpec("lookup", (64, 160), offset=int(-symbols.min()) - 1)
    with pytest.raises(CodecError):
        emulate_decode(reader, 0, few, codebook=codebook)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_looked_up_values_are_exact(dtype: Any, kind: Any) -> None:
    make = laplace if dtype == np.int8 else laplace16
    symbols = make((1, 33, 70), 9, 2)
    codebook = np.sort(np.random.default_rng(0).normal(size=512)).astype(kind)
    reader = WideReader(encode_wide([symbols], steps=64))
    spec = OutputSpec("lookup", (33, 70), offset=256)
    found = emulate_decode(reader, 0, spec, codebook=codebook)
    np.testing.assert_array_equal(found, codebook[symbols[0].astype(int) + 256])
    few = OutputSpec("lookup", (33, 70), offset=int(-symbols.min()) - 1)
    with pytest.raises(CodecError):
        emulate_decode(reader, 0, few, codebook=codebook)


def test_exceptions_are_dequantised_too() -> None:
    sample = next(s for s in samples() if s.name == "wide_raw")
    reader = WideReader(sample.encode())
    assert reader.info.num_exceptions > 0
    for index, symbols in enumerate(sample.decoded()):
        scales = np.random.default_rng(0).uniform(0.01, 0.1, symbols.shape[2]).astype(np.float32)
        spec = OutputSpec("float32", symbols.shape, axis=2)
        found = emulate_decode(reader, index, spec, scales=scales)
        np.testing.assert_array_equal(found, symbols.astype(np.float32) * scales)


def test_values_behind_the_shape_are_left_alone() -> None:
    symbols = laplace((1, 10, 37), 3)
    reader = WideReader(encode_wide([symbols]))
    memory = np.full(400, 77, np.int8)
    spec = OutputSpec("symbols", (301,))
    emulate_decode(reader, 0, spec, out=memory[:301])
    np.testing.assert_array_equal(memory[:301], symbols.reshape(-1)[:301])
    assert (memory[301:] == 77).all()


def test_an_output_at_an_odd_address_is_written() -> None:
    symbols = laplace((1, 64, 64), 3)
    reader = WideReader(encode_wide([symbols]))
    memory = np.zeros(64 * 64 + 3, np.int8)
    found = emulate_decode(reader, 0, OutputSpec("symbols", (64, 64)), out=memory[3:])
    np.testing.assert_array_equal(found, symbols[0])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 3.0, 60.0, 3000.0]),
    st.booleans(),
)
def test_any_tensors_come_back(shapes: Any, seed: int, spread: float, wide: bool) -> None:
    random = np.random.default_rng(seed)
    limits = np.iinfo(np.int16 if wide else np.int8)
    tensors = [
        np.clip(np.rint(random.laplace(0, spread, s)), limits.min, limits.max).astype(limits.dtype)
        for s in shapes
    ]
    words = encode_wide(tensors)
    reader = WideReader(words)
    np.testing.assert_array_equal(emulate_decode_all(reader), decode_matrix(words))
    for index, tensor in enumerate(tensors):
        found = emulate_decode(reader, index, OutputSpec("symbols", tensor.shape))
        np.testing.assert_array_equal(found, tensor)


def test_arguments_that_contradict_each_other_are_refused() -> None:
    reader = WideReader(encode_wide([laplace((1, 8, 8), 3)]))
    scales = np.ones(7, np.float32)
    with pytest.raises(CodecError, match="scales are"):
        emulate_decode(reader, 0, OutputSpec("float32", (8, 8)), scales=scales)
    with pytest.raises(CodecError):
        emulate_decode(reader, 0, OutputSpec("symbols", (9, 9)))
    with pytest.raises(CodecError):
        emulate_decode(reader, 1, OutputSpec("symbols", (8, 8)))
