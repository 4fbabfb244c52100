# SPDX-License-Identifier: Apache-2.0
"""Bits of parameters as the wide coder stores them: nearer to the file than an entropy is, because
its classes and contexts profit from what the symbols have in common."""

from __future__ import annotations

from math import prod

import numpy as np

from passes.schemes.base import Parameters
from passes.schemes.entropy import entropy_bits
from runtime.wide import encode_wide

_ROW = 64


def coded_bits(parameters: Parameters) -> float:
    """Bits of ``parameters`` as the wide coder stores their symbols, with their side
    information."""
    inner = parameters.children()
    if inner:
        own = parameters.bits() - sum(child.bits() for child in inner)
        return own + sum(coded_bits(child) for child in inner)
    symbols = getattr(parameters, "symbols", None)
    if symbols is None or symbols.dtype not in (np.int8, np.int16):
        return parameters.bits()
    side = parameters.bits() - entropy_bits(symbols)
    return side + 16.0 * encode_wide([_three_axes(symbols)]).size


def _three_axes(symbols: np.ndarray) -> np.ndarray:
    """As ``select_weights.coder_view`` sees a weight: taps last, matrices as rows."""
    shape = symbols.shape
    taps = prod(shape[2:])
    if len(shape) > 2 and taps > 1:
        shape = (shape[0], shape[1], taps)
    elif len(shape) > 1:
        shape = (1, shape[0], shape[1])
    if len(shape) < 3 or shape[2] > 1 << 15:
        flat = symbols.reshape(-1)
        return np.pad(flat, (0, -flat.size % _ROW)).reshape(1, -1, _ROW)
    return symbols.reshape(shape)
