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
    return side + 16.0 * encode_wide([in_rows(symbols)]).size


def coder_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """About as ``select_weights.coder_view`` sees a weight: taps last, matrices as rows. None for
    vectors and rows that are too long for a segment."""
    taps = prod(shape[2:])
    if len(shape) > 2 and taps > 1:
        wanted = (shape[0], shape[1], taps)
    elif len(shape) > 1:
        wanted = (1, shape[0], shape[1] * taps)
    else:
        return None
    return None if wanted[2] > 1 << 15 else wanted


def in_rows(symbols: np.ndarray) -> np.ndarray:
    """Symbols in three dimensions, padded with zeros where they have no ``coder_shape``."""
    shape = coder_shape(symbols.shape)
    if shape is None:
        flat = symbols.reshape(-1)
        return np.pad(flat, (0, -flat.size % _ROW)).reshape(1, -1, _ROW)
    return symbols.reshape(shape)
