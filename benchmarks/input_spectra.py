# SPDX-License-Identifier: Apache-2.0
"""Autocorrelation of what the convolutions of a network are given, along their taps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from models.network import Feeds


def autocorrelations(path: Path, feeds: Feeds) -> dict[str, npt.NDArray[np.float64]]:
    """Mean of x[t] x[t + lag] over inputs, channels and positions for lags 0 … taps - 1, for each
    convolution whose kernel is longer than 1 along one axis only, by the name of its weight.

    Padding counts as zeros, as the convolution sees it. Of strided convolutions every position
    counts.
    """
    import onnxruntime

    model = onnx.load(str(path))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in shapes:
            taps = [i for i, n in enumerate(shapes[node.input[1]][2:], start=2) if n > 1]
            if len(taps) == 1:
                wanted[node.input[1]] = node.input[0], taps[0]
    known = {value.name for value in (*model.graph.output, *model.graph.input)}
    names = sorted({source for source, _ in wanted.values()} - known)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(names, session.run(names, feeds), strict=True)) if names else {}
    values |= feeds
    return {
        weight: _lags(np.moveaxis(values[source], axis, -1), shapes[weight][axis])
        for weight, (source, axis) in wanted.items()
    }


def _lags(signal: npt.NDArray[np.generic], count: int) -> npt.NDArray[np.float64]:
    """By the Fourier transform of the signal, padded so that it does not wrap."""
    rows = signal.reshape(-1, signal.shape[-1])
    size = rows.shape[1] + count
    power = np.zeros(size // 2 + 1)
    for start in range(0, len(rows), 4096):
        spectrum = np.fft.rfft(rows[start : start + 4096].astype(np.float64), size)
        power += np.square(np.abs(spectrum)).sum(0)
    return np.fft.irfft(power, size)[:count] / rows.size
