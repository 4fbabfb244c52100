# SPDX-License-Identifier: Apache-2.0
"""NNCodec's DeepCABAC on given symbols, where PyPI's `nncodec` is installed.

Its compiled coder is called without the rest of the package, which would quantise anew.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

UNARY_LENGTH = 11  # cabac_unary_length_minus1 + 1 of its default configuration


def _coder() -> Any:
    package = importlib.util.find_spec("nncodec")
    if package is None or package.origin is None:
        raise SystemExit("nncodec is not installed: pip install nncodec")
    file = next((Path(package.origin).parent / "extensions").glob("deepCABAC*.so"))
    spec = importlib.util.spec_from_file_location("deepCABAC", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure_nncodec(tensors: list[npt.NDArray[np.int8]]) -> tuple[int, float]:
    """Code int8 [A, B, C] tensors by DeepCABAC and decode them again.

    Returns the bytes of all payloads (the best of its context parameter sets) and the seconds of
    decoding. Raises `SystemExit` where a tensor does not come back.
    """
    coder = _coder()
    size, seconds = 0, 0.0
    off = coder.HdspMode.AlwaysOff, np.zeros(0, np.int8)
    for tensor in tensors:
        flat = np.ascontiguousarray(tensor.reshape(tensor.shape[0] * tensor.shape[1], -1), np.int32)
        encoder = coder.Encoder()
        encoder.initCtxModels(UNARY_LENGTH, 1)
        encoder.encodeLayer(flat, 0, 0, 0, 0, 0, np.zeros(flat.shape[0], np.int32), *off, 0, 0)
        payload = np.frombuffer(encoder.finish().tobytes(), np.uint8)
        size += payload.size
        decoded = np.zeros_like(flat)
        start = time.perf_counter()
        decoder = coder.Decoder()
        decoder.setStream(payload)
        decoder.initCtxModels(UNARY_LENGTH)
        decoder.decodeLayer(decoded, 0, 0, 0, 0, *off, 0, 0)
        seconds += time.perf_counter() - start
        if not np.array_equal(decoded, flat):
            raise SystemExit("NNCodec did not decode a tensor to its symbols")
    return size, seconds
