# SPDX-License-Identifier: Apache-2.0
"""The wide codec decoded on a GPU, bit for bit as the oracle and the host's executor do."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from runtime import CodecError, WideReader, encode_wide
from runtime.gpu import DeviceDecoder, DeviceMemory, Request, decode_together, wait
from runtime.gpu_output import (
    LAYOUTS,
    Layout,
    OutputSpec,
    describe_output,
    emulate_decode,
    plan,
)
from runtime.oracle import decode_matrix
from tests.cuda.device_arrays import DeviceArray, bytes_at, needs_gpu
from tests.malformed_corpus import refused_otherwise
from tests.wide_samples import Sample, laplace, laplace16, samples

pytestmark = needs_gpu
ON_DEVICE = [name for name in LAYOUTS if name != "auto"]
SHAPES = [(70, 3, 40), (1, 1, 1), (33, 1, 64), (5, 200, 9), (1, 1, 3000), (64, 1, 512), (40, 1, 16)]


def decode_matrix_on_device(reader: WideReader, layout: Layout = "auto") -> np.ndarray:
    shape = reader.info.num_lanes, reader.info.num_steps
    out = DeviceArray(int(np.prod(shape)) * reader.info.dtype.itemsize)
    decoder = DeviceDecoder(reader, -1, layout=layout)
    decoder.decode_into(out.address, out.nbytes)
    found = out.numpy(reader.info.dtype, shape)
    decoder.check_decoded()
    return found


def decode_on_device(
    reader: WideReader, tensor: int, spec: OutputSpec, dtype: Any, *, offset: int = 0, **arrays: Any
) -> np.ndarray:
    inputs: dict[str, Any] = {}
    held = {name: DeviceArray.of(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        address = held[name].address
        if name == "scales":
            inputs[name] = address, array.dtype.name, array.shape
        elif name == "zero_points":
            inputs[name] = address, array.dtype.name
        else:
            inputs[name] = address, array.itemsize, array.size
    out = DeviceArray(spec.size * np.dtype(dtype).itemsize, offset)
    decoder = DeviceDecoder(reader, tensor)
    decoder.decode_into(out.address, out.nbytes, spec, **inputs)
    found = out.numpy(dtype, spec.shape)
    decoder.check_decoded()
    return found


def test_tensors_are_decoded_together_as_alone() -> None:
    """Of several blobs, more than a launch has room for, each to its own type and place; memory
    between the outputs keeps what it held."""
    random = np.random.default_rng(4)
    requests, wanted, held = [], [], []
    for sample in samples():
        reader = WideReader(sample.encode())
        for index, expected in enumerate(sample.decoded()):
            shape = expected.shape
            for dtype in ("symbols", "float16", "float32", "symbols"):
                spec, given = OutputSpec(dtype, shape, axis=0), {}
                values = expected
                if dtype != "symbols":
                    scales = random.uniform(0.01, 0.1, shape[0]).astype(np.float32)
                    held.append(DeviceArray.of(scales))
                    given["scales"] = held[-1].address, "float32", scales.shape
                    wide = scales.reshape(-1, *[1] * (len(shape) - 1))
                    values = (expected.astype(np.float32) * wide).astype(dtype)
                out = DeviceArray(values.nbytes + 32)
                decoder = DeviceDecoder(reader, index)
                output = describe_output(spec, **given)
                requests.append(Request(decoder, output, out.address, values.nbytes))
                wanted.append((out, values))
    assert len(requests) > 300
    decode_together(requests)
    for out, values in wanted:
        found = out.numpy(np.uint8, (out.nbytes,))
        assert found[: values.nbytes].tobytes() == values.tobytes()
        assert set(found[values.nbytes :]) == {0xA5}
    for request in requests:
        request.decoder.check_decoded()


def test_memory_of_the_library() -> None:
    values = laplace((3, 5, 64), 1)
    reader = WideReader(encode_wide([values]))
    memory = DeviceMemory(values.nbytes + 16)
    memory.upload(np.full(values.nbytes + 16, 7, np.uint8))
    output = describe_output(OutputSpec("symbols", values.shape))
    decode_together([Request(DeviceDecoder(reader, 0), output, memory.address + 16, values.nbytes)])
    wait()
    found = bytes_at(memory.address, values.nbytes + 16)
    assert set(found[:16]) == {7}
    assert found[16:].tobytes() == values.tobytes()


@pytest.mark.parametrize("layout", ON_DEVICE)
@pytest.mark.parametrize("sample", list(samples()), ids=lambda s: s.name)
def test_samples_decode_as_in_the_oracle(sample: Sample, layout: Layout) -> None:
    words = sample.encode()
    reader = WideReader(words)
    if any(
        plan(reader, index, layout=layout).grid == 0 for index in range(-1, len(reader.tensors))
    ):
        pytest.skip(f"{layout} tables do not fit shared memory")
    np.testing.assert_array_equal(decode_matrix_on_device(reader, layout), decode_matrix(words))
    for index, expected in enumerate(sample.decoded()):
        spec = OutputSpec("symbols", expected.shape)
        found = decode_on_device(reader, index, spec, reader.info.dtype)
        np.testing.assert_array_equal(found, expected)


def test_malformed_blobs_are_refused_with_their_code() -> None:
    def decode(words: np.ndarray) -> None:
        decode_matrix_on_device(WideReader(words))

    assert refused_otherwise(decode) == []


@pytest.mark.parametrize("contexts", ["off", "on"])
@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_tensors_of_every_shape_class_come_back(dtype: Any, trellis: bool, contexts: Any) -> None:
    make = laplace if dtype == np.int8 else laplace16
    tensors = [make(shape, 3 if n % 2 else 30, n) // 2 for n, shape in enumerate(SHAPES)]
    tensors[0][::3] //= 4
    for steps in (0, 96):
        words = encode_wide(
            tensors, steps=steps, contexts=contexts, trellis=[trellis] * len(tensors)
        )
        reader = WideReader(words)
        for index, tensor in enumerate(tensors):
            spec = OutputSpec("symbols", tensor.shape)
            found = decode_on_device(reader, index, spec, dtype)
            np.testing.assert_array_equal(found, reader.decode_tensor(index))


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("offset", [0, 4])
def test_floats_are_those_of_the_host(kind: str, offset: int) -> None:
    random = np.random.default_rng(0)
    symbols = laplace((1, 256, 384), 9, 5)
    reader = WideReader(encode_wide([symbols], steps=512))
    for axis, block, shape in ((1, 0, ()), (0, 0, (256,)), (1, 0, (384,)), (1, 32, (256, 12)),
                               (0, 50, (6, 384))):  # fmt: skip
        scales = random.uniform(0.001, 0.1, shape).astype(np.float32)
        zeros = random.integers(-9, 9, shape).astype(np.int8)
        spec = OutputSpec(kind, (256, 384), axis, block)
        wanted = emulate_decode(reader, 0, spec, scales=scales, zero_points=zeros)
        found = decode_on_device(
            reader, 0, spec, wanted.dtype, offset=offset, scales=scales, zero_points=zeros
        )
        np.testing.assert_array_equal(
            found.view(np.uint8).reshape(-1), wanted.view(np.uint8).reshape(-1)
        )


def test_a_symbol_outside_the_codebook_is_reported() -> None:
    symbols = laplace((1, 64, 64), 9, 2)
    reader = WideReader(encode_wide([symbols]))
    codebook = np.sort(np.random.default_rng(0).normal(size=512)).astype(np.float16)
    spec = OutputSpec("lookup", (64, 64), offset=256)
    found = decode_on_device(reader, 0, spec, np.float16, codebook=codebook)
    np.testing.assert_array_equal(found, codebook[symbols[0].astype(int) + 256])
    few = OutputSpec("lookup", (64, 64), offset=int(-symbols.min()) - 1)
    with pytest.raises(CodecError):
        decode_on_device(reader, 0, few, np.float16, codebook=codebook)


def test_threads_share_a_decoder_each_on_its_own_stream() -> None:
    import torch

    symbols = laplace((1, 2048, 1024), 2, 1)
    reader = WideReader(encode_wide([symbols], steps=1024))
    decoder = DeviceDecoder(reader, 0)
    spec = OutputSpec("symbols", (2048, 1024))
    wrong: list[int] = []

    def work(number: int) -> None:
        stream = torch.cuda.Stream()
        for _ in range(20):
            out = DeviceArray(spec.size)
            stream.wait_stream(torch.cuda.default_stream())
            decoder.decode_into(out.address, out.nbytes, spec, stream=stream.cuda_stream)
            stream.synchronize()
            if not np.array_equal(out.numpy(np.int8, spec.shape), symbols[0]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_decoders_of_one_kernel_keep_their_shared_memory() -> None:
    """One that needs less, made later, leaves an earlier one what it needs."""
    random = np.random.default_rng(0)
    spread = np.exp(random.normal(0, 0.6, (768, 1))) * np.exp(random.normal(0, 0.4, (1, 768)))
    large = np.clip(np.rint(random.laplace(0, 2.0, (768, 768)) * spread), -127, 127)
    readers = [
        WideReader(encode_wide([values.astype(np.int8)[None]], steps=64))
        for values in (large, laplace((1, 40, 40), 2)[0])
    ]
    decoders = [DeviceDecoder(reader, 0, layout="paired") for reader in readers]
    needed = [decoder.describe()[0].shared_bytes for decoder in decoders]
    assert needed[0] > 49152 > needed[1]
    for reader, decoder in zip(readers, decoders, strict=True):
        wanted = reader.decode_tensor(0)
        out = DeviceArray(wanted.nbytes)
        decoder.decode_into(out.address, out.nbytes, OutputSpec("symbols", wanted.shape))
        np.testing.assert_array_equal(out.numpy(np.int8, wanted.shape), wanted)


def test_a_captured_graph_decodes_again() -> None:
    import torch

    symbols = laplace((1, 256, 512), 2, 1)
    reader = WideReader(encode_wide([symbols]))
    decoder = DeviceDecoder(reader, 0)
    spec = OutputSpec("symbols", (256, 512))
    out = DeviceArray(spec.size)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        decoder.decode_into(out.address, out.nbytes, spec, stream=stream)
    for _ in range(3):
        out._memory.fill_(7)
        graph.replay()
        np.testing.assert_array_equal(out.numpy(np.int8, spec.shape), symbols[0])


def test_a_decoder_takes_the_memory_that_it_says_and_gives_it_back() -> None:
    import torch

    symbols = laplace((1, 4096, 8192), 2, 1)
    reader = WideReader(encode_wide([symbols], steps=2048))
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info()[0]
    decoder = DeviceDecoder(reader, 0)
    _, blob, image = decoder.describe()
    assert blob < symbols.size // 2
    assert image < 1 << 20
    taken = before - torch.cuda.mem_get_info()[0]
    assert taken <= blob + image + (8 << 20)  # the driver hands out pages of 2 MB
    del decoder
    assert before - torch.cuda.mem_get_info()[0] <= 4 << 20
