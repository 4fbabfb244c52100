# SPDX-License-Identifier: Apache-2.0
"""What all schemes fit that choose each weight from a small set of values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from passes.schemes.base import Parameters
from passes.schemes.entropy import entropy_bits

_INT8, _INT16 = 2**7, 2**15


@dataclass(frozen=True, eq=False)
class CodebookParameters(Parameters):
    """A fitted codebook.

    Attributes:
        symbols: int8, or int16 for more than 256 entries, the weight's shape; entry of the codebook
            minus ``offset``.
        offset: Chosen so that symbol 0 is the entry in the middle, or the most frequent one where
            it is twice as frequent, as near as the symbols' type allows.
        codebook: [entries] of the weight's type, ascending.
        dtype: The weight's own type.
    """

    symbols: np.ndarray
    offset: int
    codebook: np.ndarray
    dtype: np.dtype

    name: ClassVar[str] = "codebook"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.symbols.shape

    def decode(self) -> np.ndarray:
        """A lookup."""
        return np.take(self.codebook, self.symbols.astype(np.int32) + self.offset)

    def bits(self) -> float:
        """The symbols' entropy and the codebook."""
        return entropy_bits(self.symbols) + 8 * self.codebook.nbytes


P = TypeVar("P", bound=CodebookParameters)


def joint_bits(parameters: Iterable[CodebookParameters]) -> float:
    """Estimated bits of parameters that may share codebooks; equal ones are stored once."""
    listed = list(parameters)
    books = {(p.codebook.dtype.name, p.codebook.tobytes()): 8 * p.codebook.nbytes for p in listed}
    return sum(entropy_bits(p.symbols) for p in listed) + sum(books.values())


def nearest_entry(values: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index (intp) of the nearest entry of the ascending float32 ``codebook`` for each of
    ``values`` (float32, 1-D); the lower one of two as near."""
    middles = (codebook[1:].astype(np.float64) + codebook[:-1]) / 2
    below = middles.astype(np.float32)  # the greatest float32 that is not above the middle
    below = np.where(below > middles, np.nextafter(below, np.float32(-np.inf)), below)
    return np.searchsorted(below, values)


def assigned(
    kind: type[P],
    weight: np.ndarray,
    codebook: np.ndarray,
    mask: np.ndarray | None,
    *,
    keep_unused: bool = False,
) -> P:
    """Parameters of ``kind`` that give each element its nearest entry.

    Args:
        kind: What to make.
        weight: Of any float type, finite.
        codebook: float64 or float32 [entries], not empty, in any order; rounded to the weight's
            type.
        mask: bool, the weight's shape; where it is False the entry is 0, which is added if the
            codebook lacks it, for these elements only. None keeps all.
        keep_unused: Keep entries that no element has, for a codebook that others share.
    """
    values = np.asarray(weight, np.float32).reshape(-1)
    entries = np.unique(np.asarray(codebook).astype(weight.dtype).astype(np.float32)) + 0
    indices = nearest_entry(values, entries)
    if mask is not None:
        zero = int(np.searchsorted(entries, 0))
        if zero == entries.size or entries[zero] != 0:
            entries = np.insert(entries, zero, np.float32(0))
            indices += indices >= zero
        indices[~mask.reshape(-1)] = zero
    counts = np.bincount(indices, minlength=entries.size)
    if not keep_unused:
        used = counts > 0
        indices = (np.cumsum(used) - 1)[indices]
        entries, counts = entries[used], counts[used]
    half = _INT8 if entries.size <= 2 * _INT8 else _INT16
    offset = min(max(_place_of_zero(counts), entries.size - half), half)
    return kind(
        symbols=(indices - offset)
        .astype(np.int8 if half == _INT8 else np.int16)
        .reshape(weight.shape),
        offset=offset,
        codebook=entries.astype(weight.dtype),
        dtype=weight.dtype,
    )


def _place_of_zero(counts: np.ndarray) -> int:
    """Which entry becomes symbol 0. Codebooks of weights that are alike should number them alike,
    because they share tables: which of two signs is the more frequent one is chance."""
    most, middle = int(counts.argmax()), counts.size // 2
    return most if counts[most] > 2 * counts[middle] else middle
