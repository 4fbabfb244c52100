# SPDX-License-Identifier: Apache-2.0
"""The library's ops for CUDA on a GPU, by a stand-in for ONNX Runtime: values as on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime import WideReader, encode_wide
from runtime.small import encode_small
from tests.cuda.device_arrays import DeviceArray, needs_gpu
from tests.fake_runtime import Node, RefusedError, Run, Tensor, fake_runtime
from tests.malformed_corpus import malformed_blobs
from tests.packed_samples import PackedSample, packed_samples
from tests.wide_samples import laplace, laplace16

pytestmark = needs_gpu
CUDA = "CUDAExecutionProvider"
TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "float16": 10, "uint32": 12,
}  # fmt: skip


def run(
    op: str,
    arrays: list[np.ndarray],
    dtype: Any,
    *,
    blob: bool = True,
    runs: int = 2,
    **attributes: Any,
) -> np.ndarray:
    """Run an op of the CUDA provider; a blob is a constant in the host's memory."""
    held = [DeviceArray.of(a) if index or not blob else None for index, a in enumerate(arrays)]
    tensors = [
        Tensor(TYPES[a.dtype.name], a.shape, h.address if h is not None else a.ctypes.data)
        for a, h in zip(arrays, held, strict=True)
    ]
    outputs: list[DeviceArray] = []

    def allocate(shape: tuple[int, ...]) -> int:
        outputs.append(DeviceArray(int(np.prod(shape)) * np.dtype(dtype).itemsize))
        return outputs[-1].address

    types = {index: tensor.element_type for index, tensor in enumerate(tensors)}
    node = Node(attributes, {0: tensors[0]} if blob else {}, types)
    with fake_runtime() as runtime, runtime.kernel(op, CUDA, node) as kernel:
        for _ in range(runs):
            done = kernel(Run(tensors, allocate))
            outputs[-1].numpy(np.uint8, (-1,))  # waits, so that a later run sees what went wrong
        return outputs[-1].numpy(dtype, done.shape)


def test_decoders() -> None:
    first, second = laplace((1, 70, 48), 4), laplace((3, 5, 9), 9, 1)
    blob = np.array(encode_wide([first, second], steps=96))
    reader = WideReader(blob)
    np.testing.assert_array_equal(run("DecodeWide", [blob], np.int8), reader.decode_all())
    found = run("DecodeTensor", [blob], np.int8, tensor=1, shape=[3, 5, 9])
    np.testing.assert_array_equal(found, second)
    wide = laplace16((1, 30, 33), 900, 2)
    blob = np.array(encode_wide([wide]))
    found = run("DecodeTensor16", [blob], np.int16, tensor=0, shape=[30, 33])
    np.testing.assert_array_equal(found, wide[0])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_fused_decoders(kind: Any) -> None:
    symbols = laplace((1, 64, 48), 4)
    blob = np.array(encode_wide([symbols], steps=96))
    random = np.random.default_rng(0)
    scales = random.uniform(0.01, 0.1, 48).astype(kind)
    zeros = random.integers(-9, 9, 48).astype(np.int8)
    settings = {"tensor": 0, "shape": [64, 48]}
    found = run("DecodeDequantize", [blob, scales, zeros], kind, axis=1, **settings)
    exact = (symbols[0].astype(np.int32) - zeros).astype(np.float32) * scales.astype(np.float32)
    np.testing.assert_array_equal(found, exact.astype(kind))
    codebook = np.sort(random.normal(size=256)).astype(kind)
    found = run("DecodeLookup", [blob, codebook], kind, offset=128, **settings)
    np.testing.assert_array_equal(found, codebook[symbols[0].astype(int) + 128])
    with pytest.raises(RefusedError, match="earlier run"):
        run("DecodeLookup", [blob, codebook[:129].copy()], kind, offset=128, runs=9, **settings)


def test_small_streams() -> None:
    stream = laplace16((1, 1, 700), 30, 5).reshape(-1)
    for op, coder in (("Adaptive", "adaptive"), ("Huffman", "huffman"), ("Fixed", "fixed")):
        blob = np.array(encode_small(stream, coder))  # type: ignore[arg-type]
        np.testing.assert_array_equal(run(f"Decode{op}", [blob], np.int16), stream)


def test_parts_of_symbols() -> None:
    symbols = np.arange(600, dtype=np.int16).reshape(20, 30)
    taken = run("TakeTensor", [symbols], np.int16, blob=False, lane=3, lanes=5, steps=7,
                shape=[33])  # fmt: skip
    np.testing.assert_array_equal(taken, symbols[3:8, :7].reshape(-1)[:33])
    taken = run("TakeRange", [symbols.reshape(-1)], np.int16, blob=False, first=11, shape=[4, 5])
    np.testing.assert_array_equal(taken, np.arange(11, 31).reshape(4, 5))


def test_joined_planes() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    bits = values.view(np.uint32)
    turned = bits << 1 | bits >> 31
    planes = [(turned >> shift & 255).astype(np.uint8) for shift in (24, 16, 8, 0)]
    planes[0] = (planes[0] ^ 0x80).view(np.int8)
    found = run("JoinFloat", planes, np.float32, blob=False, to=1)
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("sample", list(packed_samples()), ids=lambda s: s.name)
def test_packed_products(sample: PackedSample) -> None:
    arrays, product = dict(sample.arrays), sample.product
    if "codebook" not in arrays and "zeros" not in arrays:
        arrays["zeros"] = np.full_like(arrays["scales"], product.zero)
    x = sample.x_of(12).reshape(3, 4, -1)
    found = run(
        "MatMulPackedCodebook" if "codebook" in arrays else "MatMulPacked",
        [x, *arrays.values()],
        np.float16,
        blob=False,
        N=product.outputs,
        K=product.inputs,
        bits=product.bits,
        block_size=product.group_inputs or product.inputs,
    )
    assert found.shape == (3, 4, product.outputs)
    sample.check(x.reshape(12, -1), found.reshape(12, -1))


def test_a_session_is_refused_where_a_blob_does_not_decode() -> None:
    accepted = []
    for name, words, _ in malformed_blobs():
        try:
            run("DecodeWide", [np.array(words)], np.int8)
            accepted.append(name)
        except RefusedError as error:
            assert "toolkit.DecodeWide node" in str(error)
    assert accepted == []
