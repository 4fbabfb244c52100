# SPDX-License-Identifier: Apache-2.0
"""Codebook quantisation: one-dimensional k-means over the values of a tensor.

Initialised by k-means++ (Arthur and Vassilvitskii 2007, section 2.2) on a sample and linearly over
the range (Han et al. 2016, "Deep Compression", section 3.2); Lloyd's iterations from both, the
better one kept. In one dimension the clusters are intervals of the sorted values, so an iteration
takes O(k log n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters
from passes.schemes.entropy import entropy_bits
from passes.schemes.uniform import finite_float32

_SAMPLE = 1 << 14


@dataclass(frozen=True, eq=False)
class CodebookParameters(Parameters):
    """A fitted codebook.

    Attributes:
        symbols: int8, the weight's shape; entry of the codebook minus ``offset``.
        offset: Chosen so that the most frequent symbol is as near to 0 as int8 symbols allow.
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
        return np.take(self.codebook, self.symbols.astype(np.int16) + self.offset)

    def bits(self) -> float:
        """The symbols' entropy and the codebook."""
        return entropy_bits(self.symbols) + 8 * self.codebook.nbytes


@dataclass(frozen=True)
class Codebook:
    """How to fit: ``entries`` 1 to 256, ``iterations`` of Lloyd at most, ``seed`` of the
    sampling."""

    entries: int = 16
    iterations: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.entries <= 256:
            raise SchemeError(f"codebook: entries must be 1 to 256, not {self.entries}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> CodebookParameters:
        """Fits a float array of any shape; with few distinct values the codebook is exactly these.

        Where the context's mask excludes elements, one entry is 0, and the others are fitted to
        the elements that are left. Raises SchemeError for an empty array, NaN or infinity.
        """
        values = finite_float32(weight).reshape(-1)
        mask = None if context is None else context.mask
        fixed = mask is not None and not mask.all()
        if fixed and mask is not None:
            centroids = self._centroids(values[mask.reshape(-1)], self.entries - 1)
            centroids = np.union1d(centroids, [0.0])
        else:
            centroids = self._centroids(values, self.entries)
        codebook = np.unique(centroids.astype(weight.dtype).astype(np.float32))
        indices = nearest_entry(values, codebook)
        if fixed and mask is not None:
            indices[~mask.reshape(-1)] = np.searchsorted(codebook, 0.0)
        mode = int(np.bincount(indices, minlength=codebook.size).argmax())
        offset = min(max(mode, codebook.size - 128), 128)
        return CodebookParameters(
            symbols=(indices.astype(np.int16) - offset).astype(np.int8).reshape(weight.shape),
            offset=offset,
            codebook=codebook.astype(weight.dtype),
            dtype=weight.dtype,
        )

    def _centroids(self, values: np.ndarray, entries: int) -> np.ndarray:
        """At most ``entries`` centroids of a vector; none for an empty one, or of no entries."""
        if entries < 1 or values.size == 0:
            return np.zeros(0)
        ordered = np.sort(values)
        distinct = ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]
        if distinct.size <= entries:
            centroids = distinct.astype(np.float64)
        else:
            generator = np.random.default_rng(self.seed)
            starts = (
                np.linspace(ordered[0], ordered[-1], entries, dtype=np.float64),
                _plus_plus(ordered, entries, generator),
            )
            fits = [_lloyd(ordered, start, self.iterations) for start in starts]
            centroids = min(fits, key=lambda fit: fit[1])[0]
        return centroids


def nearest_entry(values: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the nearest entry of the ascending ``codebook`` for each of ``values`` (1-D)."""
    middles = (codebook[1:].astype(np.float64) + codebook[:-1]) / 2
    return np.searchsorted(middles.astype(np.float32), values).astype(np.uint8)


def _plus_plus(ordered: np.ndarray, entries: int, generator: np.random.Generator) -> np.ndarray:
    """k-means++ seeds from a regular sample of the sorted values, ascending."""
    at = np.linspace(0, ordered.size - 1, min(ordered.size, _SAMPLE)).astype(np.int64)
    sample = ordered[at].astype(np.float64)
    seeds = [sample[generator.integers(sample.size)]]
    distance = (sample - seeds[0]) ** 2
    while len(seeds) < entries:
        total = np.cumsum(distance)
        if total[-1] <= 0:  # fewer distinct values in the sample than entries
            seeds.append(generator.uniform(sample[0], sample[-1]))
        else:
            drawn = np.searchsorted(total, generator.uniform(0, total[-1]), side="right")
            seeds.append(sample[min(int(drawn), sample.size - 1)])
        np.minimum(distance, (sample - seeds[-1]) ** 2, out=distance)
    return np.sort(np.array(seeds))


def _lloyd(ordered: np.ndarray, start: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
    """Lloyd's iterations on sorted values; returns ascending centroids and the squared error.

    An empty cluster is moved into the cluster of the largest squared error, which so is split in
    two.
    """
    sums = np.concatenate(([0.0], np.cumsum(ordered, dtype=np.float64)))
    squares = np.concatenate(([0.0], np.cumsum(np.square(ordered, dtype=np.float64))))
    centroids, error = np.sort(start), np.inf
    for _ in range(max(iterations, 1)):
        cuts = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate(([0], cuts, [ordered.size]))
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        errors = np.maximum(np.diff(squares[edges]) - counts * means**2, 0.0)
        updated = np.where(counts > 0, means, centroids)
        empty = np.flatnonzero(counts == 0)
        for spare, full in zip(empty, np.argsort(-errors), strict=False):
            if errors[full] > 0:
                updated[spare] = (ordered[edges[full]] + updated[full]) / 2
        previous, error = error, float(errors.sum())
        updated.sort()
        if empty.size == 0 and previous - error <= 1e-6 * error:
            return updated, error
        centroids = updated
    return centroids, error
