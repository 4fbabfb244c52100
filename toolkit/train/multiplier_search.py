# SPDX-License-Identifier: Apache-2.0
"""Sweeps over a multiplier, and the search for the one that meets a target of size or accuracy.

Every method has one number that trades size for accuracy: the penalty per bit, a share that is
kept, a number of points. A sweep gives the curve; the search bisects it, so that the number is
found and not guessed. Points are kept in a file, so that both go on where they were interrupted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.errors import InputError
from toolkit.output_file import write_text

POINTS = "points.json"


@dataclass(frozen=True)
class Point:
    """A run: its multiplier, the bytes from which all parameters are decoded, and the metric on
    validation data."""

    multiplier: float
    num_bytes: float
    metric: float


Run = Callable[[float, Path | None], Point]
"""(multiplier, the run's own folder) -> what came out. With a folder it should resume from it."""


@dataclass(frozen=True)
class Target:
    """What a search is for: exactly one of the two.

    Attributes:
        size: Bytes at most.
        max_drop: How much worse than ``baseline`` the metric may be.
        baseline: The metric of the uncompressed model on validation data.
        higher_is_better: Of the metric.
    """

    size: float | None = None
    max_drop: float | None = None
    baseline: float | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if (self.size is None) == (self.max_drop is None):
            raise InputError("target: give exactly one of size and max_drop")
        if self.size is not None and not 0 < self.size < math.inf:
            raise InputError(f"target: size: expected bytes above 0, found {self.size}")
        if self.max_drop is not None and not 0 <= self.max_drop < math.inf:
            raise InputError(f"target: max_drop: expected 0 or more, found {self.max_drop}")
        if self.max_drop is not None and self.baseline is None:
            raise InputError("target: max_drop needs the baseline's metric")

    def is_met(self, point: Point) -> bool:
        """Whether a run meets it; never by a metric that is NaN."""
        if math.isnan(point.metric):
            return False
        if self.size is not None:
            return point.num_bytes <= self.size
        return self.drop(point.metric) <= (self.max_drop or 0.0) + 1e-12

    def drop(self, metric: float) -> float:
        """How much worse a metric is than the baseline."""
        base = self.baseline or 0.0
        return base - metric if self.higher_is_better else metric - base

    def best(self, points: Iterable[Point]) -> Point | None:
        """Of the runs that meet it the most accurate (for a size) or the smallest (for a drop);
        None where none does."""
        met = [point for point in points if self.is_met(point)]
        if not met:
            return None
        if self.size is None:
            return min(met, key=lambda point: point.num_bytes)
        sign = 1 if self.higher_is_better else -1
        return max(met, key=lambda point: (sign * point.metric, -point.num_bytes))


@dataclass(frozen=True)
class Found:
    """The end of a search: the run that is taken, None where no run met the target; all runs in
    the order of their multipliers."""

    point: Point | None
    points: tuple[Point, ...]


def sweep(run: Run, multipliers: Iterable[float], folder: str | Path | None = None) -> list[Point]:
    """Runs once for each multiplier: a rate-accuracy curve, in the order of the multipliers.

    Args:
        run: What to do with each.
        multipliers: Finite numbers.
        folder: Where the points are kept, and each run's own folder is made; runs that are there
            already are not repeated.

    Raises:
        InputError: the folder holds something else.
    """
    kept = _Kept(run, folder)
    return [kept.at(multiplier) for multiplier in multipliers]


def search_multiplier(
    run: Run,
    target: Target,
    low: float,
    high: float,
    *,
    runs: int = 8,
    larger_is_smaller: bool = True,
    folder: str | Path | None = None,
) -> Found:
    """Bisects for the multiplier at which the target is just met.

    Along the multiplier the size is taken to fall and the metric to get worse (or the other way
    round). The middle of two positive ends is the geometric one. Should neither end of the range
    meet the target, or both, the better end is where the search stops.

    Args:
        run: Trains with a multiplier.
        target: What to meet.
        low, high: Ends of the range.
        runs: At most so many.
        larger_is_smaller: Whether a larger multiplier makes a smaller model.
        folder: As for `sweep`.

    Raises:
        InputError: ends that are not in order, or fewer than two runs.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"target: expected low below high, found {low} and {high}")
    if runs < 2:
        raise InputError(f"target: runs: expected 2 or more, found {runs}")
    kept = _Kept(run, folder)
    # Towards `small` models shrink; a size is met on that side, a drop on the other.
    small, large = (high, low) if larger_is_smaller else (low, high)
    safe, wanted = (small, large) if target.size is not None else (large, small)
    if target.is_met(kept.at(safe)) and not target.is_met(kept.at(wanted)):
        met, missed = safe, wanted
        for _ in range(runs - 2):
            middle = math.sqrt(met * missed) if low > 0 else (met + missed) / 2
            if middle in (met, missed):
                break
            if target.is_met(kept.at(middle)):
                met = middle
            else:
                missed = middle
    points = tuple(sorted(kept.points.values(), key=lambda point: point.multiplier))
    return Found(target.best(points), points)


class _Kept:
    """Runs by multiplier, those in the file included."""

    def __init__(self, run: Run, folder: str | Path | None) -> None:
        self._run, self._folder = run, None if folder is None else Path(folder)
        self.points: dict[float, Point] = {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / POINTS
            if path.exists():
                try:
                    listed = [Point(**entry) for entry in json.loads(path.read_text())]
                except (OSError, TypeError, ValueError) as error:
                    raise InputError(f"{path}: not the points of a sweep ({error})") from error
                self.points = {point.multiplier: point for point in listed}

    def at(self, multiplier: float) -> Point:
        """The run of a multiplier, done now unless it was before."""
        if not math.isfinite(multiplier):
            raise InputError(f"sweep: multipliers must be finite, not {multiplier}")
        if multiplier in self.points:
            return self.points[multiplier]
        own = None if self._folder is None else self._folder / f"{multiplier:.9g}"
        if own is not None:
            own.mkdir(exist_ok=True)
        point = self._run(multiplier, own)
        self.points[multiplier] = point
        if self._folder is not None:
            text = json.dumps([asdict(p) for p in self.points.values()], indent=1)
            write_text(self._folder / POINTS, text)
        return point
