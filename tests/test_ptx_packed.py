# SPDX-License-Identifier: Apache-2.0
"""The kernels of packed weights and of byte planes as nvcc compiles them, on the PTX machine."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from runtime.packed import BITS, SPAN, chunk_inputs
from tests.packed_samples import PackedSample, make_sample
from tests.ptx.cuda_runtime import PtxDevice


def small_samples(bits: int) -> list[PackedSample]:
    """Every kind of weight; sizes that fill tiles and chunks and sizes that do not, and such that
    warps load all the chunks ahead that they can."""
    return [
        make_sample(21, 2 * chunk_inputs(bits) + 40, bits, "uniform"),
        make_sample(16, chunk_inputs(bits), bits, "zeros", SPAN),
        make_sample(17, 33, bits, "zeros", SPAN),
        make_sample(40, 136, bits, "codebook", 64),
        make_sample(1, 8, bits, "codebook"),
        *(make_sample(17, 34 * chunk_inputs(bits) + 40, bits, kind, group)
          for kind, group in (("codebook", SPAN), ("zeros", 0), ("uniform", SPAN))),
    ]  # fmt: skip


def multiply(device: PtxDevice, sample: PackedSample, x: Any, offset: int = 0) -> Any:
    addresses = {name: device.upload(array) for name, array in sample.arrays.items()}
    out = device.allocate(len(x) * sample.product.outputs * 2)
    sample.product.launch(len(x), x=device.upload(x, offset), out=out, **addresses)
    return device.download(out, np.float16, (len(x), sample.product.outputs))


@pytest.mark.parametrize("architecture", [90, 75])
@pytest.mark.parametrize("bits", BITS)
def test_products_are_those_of_the_weight(
    ptx_device: PtxDevice, bits: int, architecture: int
) -> None:
    with ptx_device.in_use(architecture=architecture, races=True) as device:
        for number, sample in enumerate(small_samples(bits)):
            for batch in ((1, 17), (8, 3), (16, 1))[number % 3][: 2 if architecture == 90 else 1]:
                x = sample.x_of(batch)
                sample.check(x, multiply(device, sample, x))


@pytest.mark.parametrize("inputs", [256, 130])
def test_rows_of_x_may_begin_anywhere(ptx_device: PtxDevice, inputs: int) -> None:
    sample = make_sample(18, inputs, 3, "zeros", 64)
    x = sample.x_of(9)
    with ptx_device.in_use(races=True, order=inputs) as device:
        for offset in range(2, 16, 4):
            sample.check(x, multiply(device, sample, x, offset))


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("bits", BITS)
def test_weights_are_unpacked_exactly(ptx_device: PtxDevice, bits: int, kind: Any) -> None:
    with ptx_device.in_use(architecture=90 if bits % 2 else 75) as device:
        for sample in small_samples(bits)[:5]:
            arrays = sample.arrays_to_unpack(kind)
            addresses = {name: device.upload(array) for name, array in arrays.items()}
            out = device.allocate(sample.weight.size * np.dtype(kind).itemsize)
            sample.product.launch_unpack(kind, out=out, **addresses)
            np.testing.assert_array_equal(
                device.download(out, kind, sample.weight.shape), sample.product.unpack(**arrays)
            )


@pytest.mark.parametrize("architecture", [90, 75])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_planes_are_joined(ptx_device: PtxDevice, dtype: Any, architecture: int) -> None:
    """As float_planes.h says: bits turned left by one, bytes from the highest, the first less 128;
    the grid goes over them several times."""
    bits = (
        np.random.default_rng(0).integers(0, 1 << 8 * np.dtype(dtype).itemsize, 1700).astype(dtype)
    )
    turned = bits << dtype(1) | bits >> dtype(8 * bits.itemsize - 1)
    planes = turned.view(np.uint8).reshape(-1, bits.itemsize).T[::-1] ^ np.uint8(0)
    planes[0] ^= 0x80
    with ptx_device.in_use(architecture=architecture) as device:
        addresses = [device.upload(plane) for plane in planes] + [0] * (4 - bits.itemsize)
        out = device.allocate(bits.nbytes)
        kernel = next(
            n for n in device.kernels("ort_ops_cuda") if f"joinI{'jt'[bits.itemsize == 2]}" in n
        )
        device.launch(kernel, (3, 1, 1), (256, 1, 1), struct.pack("<6Q", *addresses, 1700, out))
        np.testing.assert_array_equal(device.download(out, dtype, bits.shape), bits)
