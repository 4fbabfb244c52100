# SPDX-License-Identifier: Apache-2.0
"""Divides calibration data: most is fitted to, some is kept apart to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.calibration import Feed, split_feeds
from toolkit.signature import InputSpec

PIECE = 8
"""Samples of a batch that are run at a time."""
MIN_PIECES = 8
EVERY = 4
"""Each fourth piece is kept apart ..."""
MAX_APART = 64
"""... up to so many."""


@dataclass(frozen=True)
class CalibrationSplit:
    """Feeds to fit to and feeds to measure on; the same ones where there is a single sample."""

    fitted: list[Feed]
    apart: list[Feed]

    @property
    def note(self) -> str:
        """What was done, in words."""
        if self.fitted is self.apart:
            return "the calibration data is one sample: fitted to and measured on it"
        fitted, apart = (sum(samples_of(f) for f in part) for part in (self.fitted, self.apart))
        return f"fitted to {fitted} samples of the calibration data, measured on {apart} others"


def split_calibration(feeds: Sequence[Feed], specs: Sequence[InputSpec]) -> CalibrationSplit:
    """Divides the feeds, batches of samples taken apart where the model allows it."""
    size = PIECE
    pieces = list(split_feeds(feeds, specs, size))
    while len(pieces) < MIN_PIECES and size > 1:
        size //= 2
        pieces = list(split_feeds(feeds, specs, size))
    if len(pieces) < 2:
        return CalibrationSplit(pieces, pieces)
    chosen = set(list(range(EVERY - 1, len(pieces), EVERY))[:MAX_APART]) or {len(pieces) - 1}
    return CalibrationSplit(
        [piece for index, piece in enumerate(pieces) if index not in chosen],
        [pieces[index] for index in sorted(chosen)],
    )


def samples_of(feed: Feed) -> int:
    """Samples of a feed, as far as its arrays tell: their common first dimension, else 1."""
    sizes = {array.shape[0] if array.ndim else 1 for array in feed.values()}
    return sizes.pop() if len(sizes) == 1 else 1
