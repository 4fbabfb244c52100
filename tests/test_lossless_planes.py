# SPDX-License-Identifier: Apache-2.0
"""Byte planes of floats: every 16-bit pattern, the corner cases of float32, the oracle."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.oracle.errors import FormatError
from runtime.oracle.planes import join_float_bits
from runtime.planes import join_planes, split_planes, to_symbols

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half(dtype: np.dtype[Any]) -> None:
    bits = np.arange(2**16, dtype=np.uint16).reshape(16, -1)
    planes = split_planes(bits.view(dtype))
    assert [(p.dtype.name, p.shape) for p in planes] == [("uint8", bits.shape)] * 2
    np.testing.assert_array_equal(join_planes(planes, dtype).view(np.uint16), bits)
    joined = join_float_bits([to_symbols(planes[0]), planes[1]])
    np.testing.assert_array_equal(joined, bits)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_any_float32(values: list[int]) -> None:
    bits = np.array(values, np.uint32)
    planes = split_planes(bits.view(np.float32))
    assert join_planes(planes, np.float32).view(np.uint32).tolist() == values
    first, *lower = planes
    assert join_float_bits([to_symbols(first), *lower]).tolist() == values
    coded = [plane.view(np.int8) for plane in lower]
    assert join_float_bits([to_symbols(first), *coded]).tolist() == values


def test_golden_planes() -> None:
    """1.5 is 0x3FC00000, turned left by one 0x7F800000; -2 is 0xC0000000, turned 0x80000001."""
    planes = split_planes(np.array([1.5, -2.0], np.float32))
    assert [p.tolist() for p in planes] == [[0x7F, 0x80], [0x80, 0], [0, 0], [0, 1]]
    assert to_symbols(planes[0]).tolist() == [-1, 0]


def test_scalars_and_strides() -> None:
    scalar = np.array(0.1, np.float32)
    assert join_planes(split_planes(scalar), np.float32) == scalar
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(join_planes(split_planes(turned), np.float32), turned)


def test_wrong_arguments() -> None:
    plane = np.zeros(3, np.uint8)
    with pytest.raises(TypeError, match="float64"):
        split_planes(np.zeros(2))
    with pytest.raises(TypeError, match="int32"):
        join_planes([plane] * 4, np.int32)
    with pytest.raises(ValueError, match="2 planes, found 3"):
        join_planes([plane] * 3, np.float16)
    with pytest.raises(TypeError, match="plane 1"):
        join_planes([plane, plane.astype(np.int8)], np.float16)
    with pytest.raises(ValueError, match="plane 1"):
        join_planes([plane, plane[:2]], np.float16)
    for planes in ([plane] * 2, [to_symbols(plane)] * 3, [to_symbols(plane), plane[:1]]):
        with pytest.raises(FormatError, match="TK_ERR_ARGUMENT"):
            join_float_bits(planes)
