# SPDX-License-Identifier: Apache-2.0
"""Divides calibration data: most is fitted to, some is measured on by the search, and some is kept
apart from both for the last word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from toolkit.calibration import Feed, split_feeds
from toolkit.sample_axis import rows_are_samples
from toolkit.signature import InputSpec

PIECE = 8
"""Samples of a batch that are run at a time."""
MIN_PIECES = 8
EVERY = 4
"""Each fourth piece is kept apart from the fitting ..."""
MAX_APART = 64
"""... up to so many; every second one of them from the search, too."""

Labels = Sequence[npt.NDArray[Any]]


@dataclass(frozen=True)
class CalibrationSplit:
    """Feeds to fit to, feeds that the search measures on, and feeds for the last word. The latter
    are the same where there is a single piece apart, and all where there is a single one.
    `places` are the indices among `pieces`, in order; `is_whole`: rows of a feed hang together, it
    is one sample."""

    pieces: list[Feed]
    places: tuple[list[int], list[int], list[int]] = field(default_factory=lambda: ([], [], []))
    is_whole: bool = False

    @property
    def fitted(self) -> list[Feed]:
        return self.of(0)

    @property
    def apart(self) -> list[Feed]:
        return self.of(1)

    @property
    def checked(self) -> list[Feed]:
        return self.of(2)

    def of(self, part: int) -> list[Feed]:
        """The feeds to fit to (0), to measure on (1), for the last word (2)."""
        return [self.pieces[index] for index in self.places[part]]

    @property
    def note(self) -> str:
        """What was done, in words."""
        if self.places[0] == self.places[1]:
            return "the calibration data is one sample: fitted to and measured on it"
        fitted, apart, checked = (
            sum(1 if self.is_whole else samples_of(feed) for feed in self.of(part))
            for part in range(3)
        )
        text = f"fitted to {fitted} samples of the calibration data, measured on {apart} others"
        if self.places[1] == self.places[2]:
            return f"{text}, which have the last word as well: too few to keep more apart"
        return f"{text}, {checked} more have the last word"


def split_calibration(
    feeds: Sequence[Feed], specs: Sequence[InputSpec], run: Callable[[Feed], Mapping[str, Any]]
) -> CalibrationSplit:
    """Divides the feeds, batches of samples taken apart where the model allows it, which `run`,
    from a feed to outputs, tells."""
    size = PIECE
    pieces = list(split_feeds(feeds, specs, size))
    is_divided = len(pieces) > len(feeds) or samples_of(pieces[0]) > 1
    if is_divided and not _is_divisible(pieces[0], specs, run):
        return _divided(list(feeds), is_whole=True)
    while len(pieces) < MIN_PIECES and size > 1:
        size //= 2
        pieces = list(split_feeds(feeds, specs, size))
    return _divided(pieces)


def _is_divisible(
    piece: Feed, specs: Sequence[InputSpec], run: Callable[[Feed], Mapping[str, Any]]
) -> bool:
    parts = list(split_feeds([piece], specs, max(samples_of(piece) // 2, 1)))
    return len(parts) < 2 or rows_are_samples(run, piece, parts)


def _divided(pieces: list[Feed], is_whole: bool = False) -> CalibrationSplit:
    if len(pieces) < 2:
        return CalibrationSplit(pieces, ([0], [0], [0]), is_whole)
    chosen = list(range(EVERY - 1, len(pieces), EVERY))[:MAX_APART] or [len(pieces) - 1]
    taken = set(chosen)
    apart, checked = (chosen[::2], chosen[1::2]) if len(chosen) > 1 else (chosen, chosen)
    rest = [index for index in range(len(pieces)) if index not in taken]
    return CalibrationSplit(pieces, (rest, apart, checked), is_whole)


def samples_of(feed: Feed) -> int:
    """Samples of a feed, as far as its arrays tell: their common first dimension, else 1."""
    sizes = {array.shape[0] if array.ndim else 1 for array in feed.values()}
    return sizes.pop() if len(sizes) == 1 else 1
