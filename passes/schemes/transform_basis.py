# SPDX-License-Identifier: Apache-2.0
"""Inverse transforms in integers, so that every machine computes the same bits.

A float matrix product depends on the order of its additions, which each library chooses. Here both
factors are integers held in float64: S is rounded to multiples of 2^-s, the coefficients to
multiples of a power of two. By Cauchy and Schwarz every partial sum of coefficients times basis
stays below 2^53, so all of them are exact, in any order. What is lost is about 2^-26 of a vector's
norm, as little as rounding weights to float32 loses.

The entries of S come out of a sine, or of sums of products, that libraries round differently in the
last bits; s is chosen so that no entry lies near the middle of two integers, and all agree on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log2, prod

import numpy as np

from passes.schemes.transform_kinds import is_orthonormal, synthesis

COEFFICIENT_BITS, BASIS_BITS = 25.9, 26.9  # their sum leaves room below 53
_TOGETHER = 64  # elements up to which several axes are undone by one product
_MARGIN = 2.0**-20
_MIN_EXPONENT = -96


@dataclass(frozen=True, eq=False)
class Stage:
    """One matrix product of an inverse transform.

    Attributes:
        sizes: The sizes along the axes that it undoes: their bases' Kronecker product.
        shift: s; the basis is rounded to multiples of 2^-s.
        basis: float64 [F, F] of integers, [frequency, position]; F is the product of ``sizes``.
    """

    sizes: tuple[int, ...]
    shift: int
    basis: np.ndarray


@lru_cache(maxsize=64)
def stages_of(kind: str, sizes: tuple[int, ...], levels: int | None) -> tuple[Stage, ...]:
    """The products that undo a transform along axes of ``sizes``, in the order of the axes. Axes
    of one element need none."""
    groups: list[tuple[int, ...]] = []
    for size in sizes:
        if size == 1:
            continue
        if groups and prod(groups[-1]) * size <= _TOGETHER:
            groups[-1] = (*groups[-1], size)
        else:
            groups.append((size,))
    stages, growth = [], 1.0
    for group in groups:
        matrix = np.ones((1, 1))
        for size in group:
            matrix = np.kron(matrix, synthesis(kind, size, levels))
        growth *= _norm_bound(kind, matrix)
        shift = floor(BASIS_BITS - log2(growth))
        while not _is_settled(matrix * 2.0**shift):
            shift -= 1
        basis = np.rint(matrix * 2.0**shift) + 0.0
        basis.setflags(write=False)
        stages.append(Stage(group, shift, basis))
    return tuple(stages)


def grid_exponent(coefficients: np.ndarray) -> int:
    """The least k for which coefficients [..., F] as multiples of 2^k have norms of at most
    2^COEFFICIENT_BITS."""
    largest = float(np.sqrt(np.einsum("...f,...f->...", coefficients, coefficients).max()))
    if not largest > 0:
        return 0
    return max(ceil(log2(largest) - COEFFICIENT_BITS), _MIN_EXPONENT)


def synthesise(whole: np.ndarray, stages: tuple[Stage, ...]) -> np.ndarray:
    """The inverse transform of integers.

    Args:
        whole: float64 [N, F] of integers, norms up to 2^COEFFICIENT_BITS.
        stages: From ``stages_of``.

    Returns:
        float64 [N, F] of integers, in multiples of 2^-(shift of the last stage).
    """
    before, after, value = 1, whole.shape[1], whole
    for index, stage in enumerate(stages):
        size = stage.basis.shape[0]
        after //= size
        if index:
            value = np.rint(value * 2.0 ** -stages[index - 1].shift)
        if after == 1:
            value = value.reshape(-1, size) @ stage.basis
        else:
            value = np.matmul(stage.basis.T, value.reshape(-1, size, after))
        before *= size
    return value.reshape(whole.shape)


def _norm_bound(kind: str, matrix: np.ndarray) -> float:
    """At least the factor by which ``matrix`` lengthens a vector, or 1 where that is less."""
    if is_orthonormal(kind):
        return 1.0
    magnitudes = np.abs(matrix)
    return max(1.0, float(np.sqrt(magnitudes.sum(0).max() * magnitudes.sum(1).max())))


def _is_settled(scaled: np.ndarray) -> bool:
    """Whether no entry is near the middle of two integers."""
    return not bool((np.abs(scaled - np.floor(scaled) - 0.5) < _MARGIN).any())
