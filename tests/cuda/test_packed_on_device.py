# SPDX-License-Identifier: Apache-2.0
"""Products with packed weights on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cuda.device_arrays import DeviceArray, needs_gpu
from tests.packed_samples import PackedSample, make_sample, packed_samples

pytestmark = needs_gpu


def multiply(sample: PackedSample, x: np.ndarray) -> np.ndarray:
    held = {name: DeviceArray.of(array) for name, array in {"x": x, **sample.arrays}.items()}
    out = DeviceArray(len(x) * sample.product.outputs * 2)
    addresses = {name: array.address for name, array in held.items()}
    sample.product.launch(len(x), out=out.address, **addresses)
    return out.numpy(np.float16, (len(x), sample.product.outputs))


@pytest.mark.parametrize("sample", list(packed_samples()), ids=lambda s: s.name)
@pytest.mark.parametrize("batch", [1, 8, 11])
def test_packed_products_are_those_of_the_weight(sample: PackedSample, batch: int) -> None:
    x = sample.x_of(batch)
    sample.check(x, multiply(sample, x))


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("sample", list(packed_samples()), ids=lambda s: s.name)
def test_weights_are_unpacked_exactly(sample: PackedSample, kind: Any) -> None:
    arrays = sample.arrays_to_unpack(kind)
    held = {name: DeviceArray.of(array) for name, array in arrays.items()}
    out = DeviceArray(sample.weight.size * np.dtype(kind).itemsize)
    addresses = {name: array.address for name, array in held.items()}
    sample.product.launch_unpack(kind, out=out.address, **addresses)
    np.testing.assert_array_equal(
        out.numpy(kind, sample.weight.shape), sample.product.unpack(**arrays)
    )


@pytest.mark.parametrize("inputs", [256, 130])
def test_rows_of_x_may_begin_anywhere(inputs: int) -> None:
    sample = make_sample(18, inputs, 3, "zeros", 64)
    x = sample.x_of(9)
    held = {name: DeviceArray.of(array) for name, array in sample.arrays.items()}
    for first in range(2, 16, 2):
        moved, out = DeviceArray(x.nbytes, first), DeviceArray(9 * 18 * 2)
        moved.memory.copy_(DeviceArray.of(x).memory)
        addresses = {name: array.address for name, array in held.items()}
        sample.product.launch(9, x=moved.address, out=out.address, **addresses)
        sample.check(x, out.numpy(np.float16, (9, 18)))


def test_more_rows_than_one_launch_takes() -> None:
    sample = make_sample(16, 32, 5, "uniform")
    x = sample.x_of(32768 * 8 + 11)
    sample.check(x, multiply(sample, x))


@pytest.mark.parametrize(
    ("bits", "kind"), [(4, "uniform"), (4, "codebook"), (3, "zeros"), (7, "zeros")]
)
def test_packed_products_of_real_size_are_the_same_each_time(bits: int, kind: str) -> None:
    sample = make_sample(4096, 4096, bits, kind, 128)
    x = sample.x_of(16)
    found = multiply(sample, x)
    sample.check(x, found)
    np.testing.assert_array_equal(multiply(sample, x), found)
