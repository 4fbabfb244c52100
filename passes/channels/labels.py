# SPDX-License-Identifier: Apache-2.0
"""Labels of channels: positions with the same label are removed together or not at all.

Every position along a channel axis of a value or of a constant has a label, an integer. Operators
that tie two positions to each other join their labels; what cannot be pruned blocks them. In the
end each connected component is a coupled channel. (The coupling is the dependency graph of Fang et
al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3, kept per position rather than
per layer, so that offsets of Concat, Split and Flatten need no further bookkeeping.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
"""int64, one label for each position along an axis."""


class CannotTraceError(Exception):
    """A rule met a use of channels that it does not understand; the text says which."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The channel axis of a value: ``labels`` has one entry for each position along ``axis``, which
    is counted from the front. Values without a layout have no channels that could go."""

    axis: int
    labels: Labels


class ChannelLabels:
    """Hands out labels, and collects which of them belong together and which must stay."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[Labels] = []
        self._second: list[Labels] = []
        self._blocked: list[tuple[Labels, str]] = []

    def fresh(self, count: int) -> Labels:
        """``count`` new labels."""
        self.count += count
        return np.arange(self.count - count, self.count, dtype=np.int64)

    def fixed(self, count: int, reason: str) -> Labels:
        """``count`` new labels of positions that must stay."""
        labels = self.fresh(count)
        self.block(labels, reason)
        return labels

    def join(self, first: Labels, second: Labels) -> None:
        """Ties two arrays of labels together, position by position; they may be broadcast.

        Raises:
            CannotTraceError: the lengths differ.
        """
        try:
            first, second = np.broadcast_arrays(first, second)
        except ValueError as error:
            raise CannotTraceError(
                f"{first.size} channels meet {second.size}, expected as many"
            ) from error
        self._first.append(first.reshape(-1))
        self._second.append(second.reshape(-1))

    def block(self, labels: Labels, reason: str) -> None:
        """These channels, and all that are coupled to them, must stay."""
        self._blocked.append((labels.reshape(-1), reason))

    def components(self) -> tuple[Labels, dict[int, str]]:
        """The component of each label, int64 (count,), and for blocked components the first
        reason."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        empty = np.zeros(0, np.int64)
        rows = np.concatenate([empty, *self._first])
        columns = np.concatenate([empty, *self._second])
        ones = np.ones(rows.size, bool)
        edges = coo_array((ones, (rows, columns)), shape=(self.count, self.count))
        component = empty
        if self.count:
            component = connected_components(edges, directed=False)[1].astype(np.int64)
        reasons: dict[int, str] = {}
        for labels, reason in self._blocked:
            for number in np.unique(component[labels]):
                reasons.setdefault(int(number), reason)
        return component, reasons
