# SPDX-License-Identifier: Apache-2.0
"""The decoder's kernels as nvcc compiles them, on the PTX machine, against the oracle."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from runtime import CodecError, WideReader, encode_wide
from runtime.gpu import DeviceDecoder
from runtime.gpu_output import Layout, OutputSpec, emulate_decode, plan
from runtime.oracle import decode_matrix
from tests.malformed_corpus import refused_otherwise
from tests.ptx.cuda_runtime import PtxDevice
from tests.ptx.errors import PtxError
from tests.wide_samples import Sample, laplace, laplace16, samples

LAYOUTS: tuple[Layout, ...] = ("direct", "paired", "buckets", "global")
SHAPES = [(200, 1, 40), (1, 1, 1), (33, 1, 64), (5, 40, 9), (1, 1, 300), (40, 1, 16)]
MOST_STEPS = 4096  # of malformed blobs; longer lanes would take half a minute each


def decode_matrix_on(device: PtxDevice, reader: WideReader, layout: Layout = "auto") -> Any:
    shape = reader.info.num_lanes, reader.info.num_steps
    size = int(np.prod(shape)) * reader.info.dtype.itemsize
    decoder = DeviceDecoder(reader, -1, layout=layout)
    out = device.allocate(size)
    decoder.decode_into(out, size)
    decoder.check_decoded()
    return device.download(out, reader.info.dtype, shape)


def decode_on(
    device: PtxDevice,
    reader: WideReader,
    tensor: int,
    spec: OutputSpec,
    dtype: Any,
    *,
    layout: Layout = "auto",
    offset: int = 0,
    **arrays: Any,
) -> Any:
    """A tensor as `spec` says, written `offset` bytes behind an aligned address."""
    inputs: dict[str, Any] = {}
    for name, array in arrays.items():
        address = device.upload(array)
        if name == "scales":
            inputs[name] = address, array.dtype.name, array.shape
        elif name == "zero_points":
            inputs[name] = address, array.dtype.name
        else:
            inputs[name] = address, array.itemsize, array.size
    size = spec.size * np.dtype(dtype).itemsize
    out = device.allocate(size, offset)
    decoder = DeviceDecoder(reader, tensor, layout=layout)
    decoder.decode_into(out, size, spec, **inputs)
    decoder.check_decoded()
    return device.download(out, dtype, spec.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sample", list(samples()), ids=lambda s: s.name)
def test_samples_decode_as_in_the_oracle(
    ptx_device: PtxDevice, sample: Sample, layout: Layout
) -> None:
    words = sample.encode()
    reader = WideReader(words)
    if plan(reader, layout=layout).grid == 0:
        pytest.skip(f"{layout} tables do not fit shared memory")
    with ptx_device.in_use(races=True) as device:
        found = decode_matrix_on(device, reader, layout)
        np.testing.assert_array_equal(found, decode_matrix(words))
        expected = sample.decoded()
        index = LAYOUTS.index(layout) % len(expected)
        spec = OutputSpec("symbols", expected[index].shape)
        found = decode_on(device, reader, index, spec, reader.info.dtype, layout=layout)
        np.testing.assert_array_equal(found, expected[index])
        assert device.launches


@pytest.mark.parametrize("sample", list(samples()), ids=lambda s: s.name)
def test_samples_decode_on_the_oldest_devices(ptx_device: PtxDevice, sample: Sample) -> None:
    words = sample.encode()
    with ptx_device.in_use(architecture=75, shared_bytes=65536) as device:
        found = decode_matrix_on(device, WideReader(words))
    np.testing.assert_array_equal(found, decode_matrix(words))


@pytest.mark.parametrize("sample", list(samples())[3::3], ids=lambda s: s.name)
def test_the_order_of_threads_does_not_matter(ptx_device: PtxDevice, sample: Sample) -> None:
    words = sample.encode()
    with ptx_device.in_use(races=True, order=len(words)) as device:
        found = decode_matrix_on(device, WideReader(words))
    np.testing.assert_array_equal(found, decode_matrix(words))


@pytest.mark.parametrize("barrier", ["bar.warp.sync", "bar.sync"])
def test_a_barrier_that_is_missing_is_found(ptx_device: PtxDevice, barrier: str) -> None:
    """The kernels need each kind of theirs: without it there are races."""
    sample = next(s for s in samples() if s.name == "contexts_raw")
    reader = WideReader(sample.encode())
    with (
        pytest.raises(PtxError, match="without a barrier|never written"),
        ptx_device.without(barrier),
        ptx_device.in_use(races=True) as device,
    ):
        decode_matrix_on(device, reader, "paired")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_malformed_blobs_are_refused_with_their_code(ptx_device: PtxDevice, layout: Layout) -> None:
    """None leads to an access that the machine refuses."""

    def decode(words: np.ndarray) -> bool:
        with ptx_device.in_use() as device:
            reader = WideReader(words)
            if plan(reader, layout=layout).grid == 0 or reader.info.num_steps > MOST_STEPS:
                return False
            decode_matrix_on(device, reader, layout)
        return True

    assert refused_otherwise(decode) == []


@pytest.mark.parametrize("contexts", ["off", "on"])
@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_tensors_of_every_shape_class_come_back(
    ptx_device: PtxDevice, dtype: Any, trellis: bool, contexts: Any
) -> None:
    """Several thread blocks of several warps."""
    make = laplace if dtype == np.int8 else laplace16
    tensors = [make(shape, 3 if n % 2 else 30, n) // 2 for n, shape in enumerate(SHAPES)]
    tensors[0][::3] //= 4
    words = encode_wide(tensors, steps=32, contexts=contexts, trellis=[trellis] * len(tensors))
    reader = WideReader(words)
    with ptx_device.in_use(multiprocessors=3) as device:
        for index, tensor in enumerate(tensors):
            found = decode_on(device, reader, index, OutputSpec("symbols", tensor.shape), dtype)
            np.testing.assert_array_equal(found, reader.decode_tensor(index))
        grids = [shape for _, shape in device.launches]
    assert max(shape[0] for shape in grids) == 3
    assert max(shape[3] for shape in grids) > 32


SCALES: list[tuple[tuple[int, ...], int, int, tuple[int, ...]]] = [
    ((12, 48), 1, 0, ()),
    ((12, 48), 0, 0, (12,)),
    ((12, 48), 1, 0, (48,)),
    ((7, 9, 3, 3), 1, 0, (9,)),
    ((7, 9, 3, 3), 3, 0, (3,)),
    ((12, 48), 1, 16, (12, 3)),
    ((20, 24), 0, 16, (2, 24)),
    ((9, 7, 5), 1, 3, (9, 3, 5)),
]
ZEROS = (None, np.int8, np.int16, np.int32)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_dequantised_values_are_those_of_the_host(ptx_device: PtxDevice, kind: Any) -> None:
    """Each form of scales, with zero points of each type, also at addresses where no vectors are
    written, and of both widths of symbols."""
    random = np.random.default_rng(0)
    types = [
        np.dtype(np.float32),
        np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else np.float16),
    ]
    for number, (shape, axis, block, scale_shape) in enumerate(SCALES):
        make = laplace if number % 2 else laplace16
        symbols = make((1, shape[0], int(np.prod(shape[1:]))), 9, 5)
        reader = WideReader(encode_wide([symbols], steps=(0, 50)[number // 2 % 2]))
        scales = random.uniform(0.001, 0.1, scale_shape).astype(types[number % 2])
        arrays = {"scales": scales}
        if zero_type := ZEROS[number % len(ZEROS)]:
            arrays["zero_points"] = random.integers(-9, 9, scale_shape).astype(zero_type)
        spec = OutputSpec(kind, shape, axis, block)
        wanted = emulate_decode(reader, 0, spec, **arrays)
        with ptx_device.in_use(architecture=75) as device:
            for offset in (0, 4)[: 1 + number % 2]:
                found = decode_on(device, reader, 0, spec, wanted.dtype, offset=offset, **arrays)
                np.testing.assert_array_equal(found.view(np.uint8), wanted.view(np.uint8))


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_looked_up_values_are_exact(ptx_device: PtxDevice, dtype: Any, kind: Any) -> None:
    make = laplace if dtype == np.int8 else laplace16
    symbols = make((1, 33, 70), 9, 2)
    codebook = np.sort(np.random.default_rng(0).normal(size=512)).astype(kind)
    reader = WideReader(encode_wide([symbols], steps=64))
    few = OutputSpec("lookup", (33, 70), offset=int(-symbols.min()) - 1)
    with ptx_device.in_use() as device:
        for offset in (0, 8):
            spec = OutputSpec("lookup", (33, 70), offset=256)
            found = decode_on(device, reader, 0, spec, kind, offset=offset, codebook=codebook)
            np.testing.assert_array_equal(found, codebook[symbols[0].astype(int) + 256])
        with pytest.raises(CodecError):
            decode_on(device, reader, 0, few, kind, codebook=codebook)


def test_exceptions_are_dequantised_too(ptx_device: PtxDevice) -> None:
    sample = next(s for s in samples() if s.name == "wide_raw")
    reader = WideReader(sample.encode())
    assert reader.info.num_exceptions > 0
    with ptx_device.in_use() as device:
        for index, symbols in enumerate(sample.decoded()):
            scales = np.random.default_rng(0).uniform(0.01, 0.1, symbols.shape[2])
            spec = OutputSpec("float32", symbols.shape, axis=2)
            held = scales.astype(np.float32)
            found = decode_on(device, reader, index, spec, np.float32, scales=held)
            np.testing.assert_array_equal(found, symbols.astype(np.float32) * held)
        assert any("patch" in name for name, _ in device.launches)


def test_values_behind_the_shape_are_left_alone(ptx_device: PtxDevice) -> None:
    symbols = laplace((1, 10, 37), 3)
    reader = WideReader(encode_wide([symbols]))
    with ptx_device.in_use() as device:
        for offset in (0, 3):
            out = device.upload(np.full(400, 77, np.int8), offset)
            DeviceDecoder(reader, 0).decode_into(out, 301, OutputSpec("symbols", (301,)))
            found = device.download(out, np.int8, (400,))
            np.testing.assert_array_equal(found[:301], symbols.reshape(-1)[:301])
            assert (found[301:] == 77).all()
