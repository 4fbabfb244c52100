# SPDX-License-Identifier: Apache-2.0
"""What the library's ops for CUDA must do, by a stand-in for ONNX Runtime, on any device that a
subclass has: a GPU, or the PTX machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

from runtime import WideReader, encode_wide
from runtime.small import encode_small
from tests.fake_runtime import Node, RefusedError, Run, Tensor, fake_runtime
from tests.malformed_corpus import malformed_blobs
from tests.packed_samples import PackedSample, packed_samples
from tests.wide_samples import laplace, laplace16

CUDA = "CUDAExecutionProvider"
TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "float16": 10, "uint32": 12,
}  # fmt: skip
Array = npt.NDArray[Any]


class DeviceBytes(Protocol):
    """Memory of a device, poisoned where it is new."""

    address: int
    nbytes: int

    def numpy(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
        """A copy on the host, after everything that runs."""


class OpChecks:
    """Tests of the ops.

    Attributes:
        library: whose ops are run; None for the installed one.
    """

    library: Path | None = None

    def memory(self, num_bytes: int) -> DeviceBytes:
        raise NotImplementedError

    def copy_of(self, array: Array) -> DeviceBytes:
        raise NotImplementedError

    def run(
        self,
        op: str,
        arrays: list[np.ndarray],
        dtype: Any,
        *,
        blob: bool = True,
        runs: int = 2,
        **attributes: Any,
    ) -> np.ndarray:
        """Run an op of the CUDA provider; a blob is a constant in the host's memory."""
        held = [self.copy_of(a) if index or not blob else None for index, a in enumerate(arrays)]
        tensors = [
            Tensor(TYPES[a.dtype.name], a.shape, h.address if h is not None else a.ctypes.data)
            for a, h in zip(arrays, held, strict=True)
        ]
        outputs: list[DeviceBytes] = []

        def allocate(shape: tuple[int, ...]) -> int:
            outputs.append(self.memory(int(np.prod(shape)) * np.dtype(dtype).itemsize))
            return outputs[-1].address

        types = {index: tensor.element_type for index, tensor in enumerate(tensors)}
        node = Node(attributes, {0: tensors[0]} if blob else {}, types)
        with fake_runtime(self.library) as runtime, runtime.kernel(op, CUDA, node) as kernel:
            for _ in range(runs):
                done = kernel(Run(tensors, allocate))
                # Waits, so that a later run sees what went wrong.
                outputs[-1].numpy(np.dtype(dtype), done.shape)
            return outputs[-1].numpy(dtype, done.shape)

    def test_decoders(self) -> None:
        first, second = laplace((1, 70, 48), 4), laplace((3, 5, 9), 9, 1)
        blob = np.array(encode_wide([first, second], steps=96))
        reader = WideReader(blob)
        np.testing.assert_array_equal(self.run("DecodeWide", [blob], np.int8), reader.decode_all())
        found = self.run("DecodeTensor", [blob], np.int8, tensor=1, shape=[3, 5, 9])
        np.testing.assert_array_equal(found, second)
        wide = laplace16((1, 30, 33), 900, 2)
        blob = np.array(encode_wide([wide]))
        found = self.run("DecodeTensor16", [blob], np.int16, tensor=0, shape=[30, 33])
        np.testing.assert_array_equal(found, wide[0])

    @pytest.mark.parametrize("kind", [np.float32, np.float16])
    def test_fused_decoders(self, kind: Any) -> None:
        symbols = laplace((1, 64, 48), 4)
        blob = np.array(encode_wide([symbols], steps=96))
        random = np.random.default_rng(0)
        scales = random.uniform(0.01, 0.1, 48).astype(kind)
        zeros = random.integers(-9, 9, 48).astype(np.int8)
        settings = {"tensor": 0, "shape": [64, 48]}
        found = self.run("DecodeDequantize", [blob, scales, zeros], kind, axis=1, **settings)
        exact = (symbols[0].astype(np.int32) - zeros).astype(np.float32) * scales.astype(np.float32)
        np.testing.assert_array_equal(found, exact.astype(kind))
        codebook = np.sort(random.normal(size=256)).astype(kind)
        found = self.run("DecodeLookup", [blob, codebook], kind, offset=128, **settings)
        np.testing.assert_array_equal(found, codebook[symbols[0].astype(int) + 128])
        with pytest.raises(RefusedError, match="earlier run"):
            self.run(
                "DecodeLookup", [blob, codebook[:129].copy()], kind, offset=128, runs=9, **settings
            )

    def test_small_streams(self) -> None:
        stream = laplace16((1, 1, 700), 30, 5).reshape(-1)
        for op, coder in (("Adaptive", "adaptive"), ("Huffman", "huffman"), ("Fixed", "fixed")):
            blob = np.array(encode_small(stream, coder))  # type: ignore[arg-type]
            np.testing.assert_array_equal(self.run(f"Decode{op}", [blob], np.int16), stream)

    def test_parts_of_symbols(self) -> None:
        symbols = np.arange(600, dtype=np.int16).reshape(20, 30)
        taken = self.run("TakeTensor", [symbols], np.int16, blob=False, lane=3, lanes=5, steps=7,
                    shape=[33])  # fmt: skip
        np.testing.assert_array_equal(taken, symbols[3:8, :7].reshape(-1)[:33])
        taken = self.run(
            "TakeRange", [symbols.reshape(-1)], np.int16, blob=False, first=11, shape=[4, 5]
        )
        np.testing.assert_array_equal(taken, np.arange(11, 31).reshape(4, 5))

    def test_joined_planes(self) -> None:
        values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
        bits = values.view(np.uint32)
        turned = bits << 1 | bits >> 31
        planes = [(turned >> shift & 255).astype(np.uint8) for shift in (24, 16, 8, 0)]
        planes[0] = (planes[0] ^ 0x80).view(np.int8)
        found = self.run("JoinFloat", planes, np.float32, blob=False, to=1)
        np.testing.assert_array_equal(found, values)

    @pytest.mark.parametrize("sample", list(packed_samples()), ids=lambda s: s.name)
    def test_packed_products(self, sample: PackedSample) -> None:
        arrays, product = dict(sample.arrays), sample.product
        if "codebook" not in arrays and "zeros" not in arrays:
            arrays["zeros"] = np.full_like(arrays["scales"], product.zero)
        x = sample.x_of(12).reshape(3, 4, -1)
        found = self.run(
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

    def test_a_session_is_refused_where_a_blob_does_not_decode(self) -> None:
        accepted = []
        for name, words, _ in malformed_blobs():
            try:
                self.run("DecodeWide", [np.array(words)], np.int8)
                accepted.append(name)
            except RefusedError as error:
                assert "toolkit.DecodeWide node" in str(error)
        assert accepted == []
