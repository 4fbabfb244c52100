# SPDX-License-Identifier: Apache-2.0
"""Transforms of n values as synthesis matrices S, float64 [frequency, position]: x = c S.

- ``dct``: DCT-II, ``dst``: DST-II, both orthonormal (Britanak, Yip and Rao 2007, section 4.2;
  SciPy's norm="ortho").
- ``dft``: real and imaginary parts stacked, Re 0 … n/2 and then Im 1 … (n-1)/2, scaled to an
  orthonormal real matrix: NumPy's rfft with norm="ortho", times sqrt(2) for frequencies that
  stand for two.
- wavelets: any discrete one of PyWavelets, periodised (Mallat 2009, section 7.5), coarse scales
  first, as pywt.wavedec does with mode="periodization". Of an odd number of values the last is
  carried to the next scale as it is, so that every length has an exact inverse.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from passes.errors import SchemeError

TRIGONOMETRIC = ("dct", "dst", "dft")


def check_kind(kind: str) -> None:
    """SchemeError for a transform that there is not."""
    if kind in TRIGONOMETRIC:
        return
    import pywt

    if kind not in pywt.wavelist(kind="discrete"):
        raise SchemeError(
            f"transform: kind {kind!r} is none of dct, dst, dft and PyWavelets' discrete wavelets"
        )


@lru_cache(maxsize=64)
def synthesis(kind: str, size: int, levels: int | None = None) -> np.ndarray:
    """S of ``size`` values: float64 [size, size], read-only.

    ``levels`` counts the scales of a wavelet; None for as many as its filters are short enough for,
    but at least one.
    """
    matrix = (
        _trigonometric(kind, size) if kind in TRIGONOMETRIC else _wavelet(kind, size, levels or 0)
    )
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def analysis(kind: str, size: int, levels: int | None = None) -> np.ndarray:
    """The inverse of S, float64 [position, frequency]: c = x S^-1. The transpose, but for
    biorthogonal wavelets."""
    matrix = synthesis(kind, size, levels)
    inverse = matrix.T if is_orthonormal(kind) else np.linalg.inv(matrix)
    inverse.setflags(write=False)
    return inverse


def is_orthonormal(kind: str) -> bool:
    """Whether squared errors of coefficients and of values are the same."""
    if kind in TRIGONOMETRIC:
        return True
    import pywt

    return bool(pywt.Wavelet(kind).orthogonal) and kind != "dmey"  # which is so nearly only


def _trigonometric(kind: str, size: int) -> np.ndarray:
    """Every entry is a sine of a multiple of pi / (2 size): the graph makes them the same way."""
    row, column = np.arange(size)[:, None], np.arange(size)[None, :]
    if kind == "dct":
        index, single = row * (2 * column + 1) + size, row == 0
    elif kind == "dst":
        index, single = (row + 1) * (2 * column + 1), row == size - 1
    else:
        sine = (row > size // 2).astype(np.int64)
        frequency = row - size // 2 * sine
        index = 4 * frequency * column + size + size * sine
        single = 2 * frequency % size == 0
    scale = np.where(single, np.sqrt(1 / size), np.sqrt(2 / size))
    matrix: np.ndarray = np.sin(index % (4 * size) * (np.pi / (2 * size))) * scale
    return matrix


def wavelet_levels(kind: str, size: int, levels: int) -> list[int]:
    """How many values each scale of a wavelet divides, the finest first."""
    import pywt

    if not levels:
        levels = max(pywt.dwt_max_level(size, pywt.Wavelet(kind).dec_len), 1)
    found: list[int] = []
    while size > 1 and len(found) < levels:
        found.append(size)
        size -= size // 2
    return found


def wavelet_filters(kind: str) -> tuple[np.ndarray, int]:
    """Synthesis filters, float64 [low and high, taps], and the tap that meets the first value."""
    import pywt

    wavelet = pywt.Wavelet(kind)
    filters = np.array([wavelet.rec_lo, wavelet.rec_hi], np.float64)
    return filters, filters.shape[1] // 2 - 1


def _wavelet(kind: str, size: int, levels: int) -> np.ndarray:
    filters, first = wavelet_filters(kind)
    matrix = np.eye(1)
    for length in reversed(wavelet_levels(kind, size, levels)):
        even = length - length % 2
        wraps = -(-filters.shape[1] // even)
        periodic = np.zeros((2, wraps * even))
        periodic[:, : filters.shape[1]] = filters
        periodic = periodic.reshape(2, wraps, even).sum(1)
        place = np.arange(even)[None, :] - 2 * np.arange(even // 2)[:, None] + first
        coarse, fine = np.pad(periodic[:, place % even], ((0, 0), (0, 0), (0, length % 2)))
        if length % 2:
            coarse = np.concatenate((coarse, np.eye(length)[-1:]))
        if matrix.shape[0] != coarse.shape[0]:  # the coarsest scale
            matrix = np.eye(coarse.shape[0])
        matrix = np.concatenate((matrix @ coarse, fine))
    return matrix if matrix.shape[0] == size else np.eye(size)
