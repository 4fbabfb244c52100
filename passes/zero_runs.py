# SPDX-License-Identifier: Apache-2.0
"""Sparse symbols as zero runs and values, each a stream of its own.

The layout of Han et al. 2016, "Deep Compression", section 2 and Fig. 2: each symbol that is not
zero is stored with the difference of its index to that of the one before, in a field of ``b`` bits;
where the difference is larger than 2^b, a filler zero is stored with the difference 2^b. Both
streams are then Huffman coded (section 4). "Zero" is the most frequent symbol here, whatever its
number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from passes.schemes.entropy import symbol_counts

RUN_BITS = range(2, 9)


@dataclass(frozen=True, eq=False)
class Gaps:
    """Where symbols are not zero.

    Attributes:
        places: int32 or int64 [k], ascending flat indices of the symbols that differ from ``fill``.
        size: The number of symbols.
        fill: The most frequent symbol.
    """

    places: np.ndarray
    size: int
    fill: int

    @classmethod
    def of(cls, symbols: np.ndarray) -> Gaps:
        """Finds them in integers of any shape, at least one."""
        return cls._beside(_most_frequent(symbols)[0], symbols)

    @classmethod
    def of_sparse(cls, symbols: np.ndarray, max_density: float) -> Gaps | None:
        """The same, or None where the share of symbols that are not zero is larger."""
        fill, count = _most_frequent(symbols)
        if symbols.size - count > max_density * symbols.size:
            return None
        return cls._beside(fill, symbols)

    @classmethod
    def _beside(cls, fill: int, symbols: np.ndarray) -> Gaps:
        places = np.flatnonzero(symbols.reshape(-1) != fill)
        if symbols.size < 1 << 31:
            places = places.astype(np.int32)
        return cls(places, symbols.size, fill)

    @classmethod
    def of_places(cls, places: np.ndarray, size: int) -> Gaps:
        """Of ``size`` symbols those at ``places`` (ascending) are not zero."""
        return cls(places, size, 0)

    def differences(self) -> np.ndarray:
        """[k], as ``places``: each index minus the one before, which for the first one is -1."""
        return np.diff(self.places, prepend=-1)

    def entries(self, run_bits: int) -> int:
        """How many differences and values are stored, fillers included."""
        return int(np.sum((self.differences() - 1) >> run_bits)) + max(self.places.size, 1)

    def best_run_bits(self, filler_bits: float, widths: Iterable[int] = RUN_BITS) -> int:
        """The field width of the fewest bits: entropy of the differences, and what the values of
        fillers cost beside."""
        found = {bits: self.run_cost(bits, filler_bits) for bits in widths}
        return min(found, key=lambda bits: found[bits])

    def run_cost(self, run_bits: int, filler_bits: float) -> float:
        """Estimated bits of all differences and of fillers' values."""
        beyond = self.differences() - 1
        fillers = int(np.sum(beyond >> run_bits))
        counts = np.bincount(beyond & ((1 << run_bits) - 1), minlength=1 << run_bits)
        counts[-1] += fillers
        used = counts[counts > 0].astype(np.float64)
        total = float(used.sum())
        if total == 0:
            return 0.0
        return float(total * np.log2(total) - np.sum(used * np.log2(used))) + fillers * filler_bits


@dataclass(frozen=True, eq=False)
class ZeroRuns:
    """The two streams.

    Attributes:
        differences: int16 [e], 1 to 2^b; their running sum is the index plus 1 of each entry.
        values: [e], the symbol of each entry; ``fill`` for a filler.
        fill: What all other symbols are.
        size: The number of symbols.
    """

    differences: np.ndarray
    values: np.ndarray
    fill: int
    size: int


def _most_frequent(symbols: np.ndarray) -> tuple[int, int]:
    """The symbol, and how often it occurs."""
    lowest, counts = symbol_counts(symbols)
    best = int(counts.argmax())
    return lowest + best, int(counts[best])


def split_runs(symbols: np.ndarray, gaps: Gaps, run_bits: int) -> ZeroRuns:
    """The zero runs of int8 or int16 ``symbols`` of any shape, or of floats at the gaps' places.

    Without any symbol but zeros one zero is stored, so that no stream is empty.
    """
    flat = symbols.reshape(-1)
    if gaps.places.size == 0:
        one = np.ones(1, np.int16)
        return ZeroRuns(one, flat[:1].copy(), gaps.fill, gaps.size)
    beyond = gaps.differences() - 1
    ends = np.cumsum((beyond >> run_bits) + 1) - 1
    differences = np.full(int(ends[-1]) + 1, 1 << run_bits, np.int16)
    differences[ends] = (beyond & ((1 << run_bits) - 1)) + 1
    values = np.full(differences.size, gaps.fill, flat.dtype)
    values[ends] = flat[gaps.places]
    return ZeroRuns(differences, values, gaps.fill, gaps.size)


def join_runs(runs: ZeroRuns) -> np.ndarray:
    """The symbols of `split_runs` again, [size] of the values' type."""
    symbols = np.full(runs.size, runs.fill, runs.values.dtype)
    symbols[np.cumsum(runs.differences, dtype=np.int64) - 1] = runs.values
    return symbols
