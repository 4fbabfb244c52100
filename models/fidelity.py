# SPDX-License-Identifier: Apache-2.0
"""How close the outputs of a file are to those of the original, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.network import Feeds, Run


def stacked_outputs(run: Run, feeds: Feeds, batch: int) -> list[npt.NDArray[np.float64]]:
    """Outputs over all rows of `feeds`, computed `batch` rows at a time, stacked on axis 0."""
    rows = len(next(iter(feeds.values())))
    parts = []
    for start in range(0, rows, batch):
        parts.append(run({name: value[start : start + batch] for name, value in feeds.items()}))
    return [np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True)]


def row_cosines(
    found: npt.NDArray[np.float64], original: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Cosine of each row of `found` to the same row of `original`, over all further axes.

    A row that is zero in one of the two only, or not finite, has cosine 0. Raises `ValueError`
    when the shapes differ.
    """
    if found.shape != original.shape:
        raise ValueError(f"outputs have shape {found.shape}, the original has {original.shape}")
    a, b = found.reshape(len(found), -1), original.reshape(len(original), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (a == 0).all(1) & (b == 0).all(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.where(both_zero, 1.0, (a * b).sum(1) / norms)
    return np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0)


def worst_output(
    found: Sequence[npt.NDArray[np.float64]], original: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """For each row the lowest cosine among the outputs, so that no dead output hides."""
    cosines = [row_cosines(a, b) for a, b in zip(found, original, strict=True)]
    return np.asarray(np.min(cosines, axis=0))
