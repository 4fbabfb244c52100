# SPDX-License-Identifier: Apache-2.0
"""Tensors that one launch decodes together, and blobs that are verified, on the PTX machine."""

from __future__ import annotations

import numpy as np
import pytest

from runtime import CodecError, WideReader, encode_wide, library
from runtime.gpu import DeviceDecoder, Request, decode_together
from runtime.gpu_output import OutputSpec, describe_output
from tests.malformed_corpus import malformed_blobs
from tests.ptx.cuda_runtime import PtxDevice
from tests.wide_samples import laplace, samples


def verify(reader: WideReader, tensor: int) -> None:
    """Raises `CodecError` where the blob of the tensor does not decode."""
    decoder = DeviceDecoder(reader, tensor)
    library.check(library.load().tk_cuda_verify(decoder.handle), "verifying")


@pytest.mark.parametrize("architecture", [90, 75])
def test_tensors_are_decoded_together_as_alone(ptx_device: PtxDevice, architecture: int) -> None:
    """Of several blobs, more than a launch has room for, each to its own type and place; memory
    between the outputs keeps what it held."""
    random = np.random.default_rng(4)
    with ptx_device.in_use(architecture=architecture, races=True) as device:
        requests, wanted = [], []
        for sample in list(samples())[architecture % 2 :: 2]:
            reader = WideReader(sample.encode())
            for index, expected in enumerate(sample.decoded()):
                shape = expected.shape
                for dtype in ("symbols", "float16", "float32"):
                    spec, given = OutputSpec(dtype, shape, axis=0), {}
                    values = expected.astype(reader.info.dtype)
                    if dtype != "symbols":
                        scales = random.uniform(0.01, 0.1, shape[0]).astype(np.float32)
                        given["scales"] = device.upload(scales), "float32", scales.shape
                        wide = scales.reshape(-1, *[1] * (len(shape) - 1))
                        values = (expected.astype(np.float32) * wide).astype(dtype)
                    out = device.upload(np.full(values.nbytes + 32, 0x77, np.uint8))
                    output = describe_output(spec, **given)
                    requests.append(
                        Request(DeviceDecoder(reader, index), output, out, values.nbytes)
                    )
                    wanted.append((out, values))
        decode_together(requests)
        for out, values in wanted:
            found = device.download(out, np.uint8, (values.nbytes + 32,))
            assert found[: values.nbytes].tobytes() == values.tobytes()
            assert (found[values.nbytes :] == 0x77).all()
        for request in requests:
            request.decoder.check_decoded()
        decoding = [name for name, _ in device.launches if "decode_wide" in name]
        assert len(decoding) < len(requests) / 2


def test_blobs_are_verified_without_writing_them(ptx_device: PtxDevice) -> None:
    with ptx_device.in_use() as device:
        reader = WideReader(encode_wide([laplace((1, 40, 33), 3), laplace((1, 5, 200), 9)]))
        for tensor in (-1, 0, 1):
            verify(reader, tensor)
        assert device.launches
        broken = [
            words
            for name, words, code in malformed_blobs()
            if code == "TK_ERR_STREAM" and "stream" in name
        ]
        assert broken
        for words in broken:
            with pytest.raises(CodecError, match="decode"):
                verify(WideReader(words), -1)
