# SPDX-License-Identifier: Apache-2.0
"""Tables of methods whose recipe has an amount that trades bytes for errors: the median of each
amount's seeds, and every run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from models.recipe import HEAD, Outcome

_MEDIANS = (
    "| command | not beaten | seeds | validation error % | test error % | parameters, bytes | "
    "ratio | file, bytes | ratio |\n|---|---|---|---|---|---|---|---|---|\n"
)

Runs = Mapping[str, list[Outcome]]
"""Outcomes by folder and command, one for each seed."""


@dataclass(frozen=True)
class Median:
    """Medians over the seeds of one amount of a method, each taken alone; errors in percent."""

    command: str
    method: str
    seeds: int
    validation_error: float
    test_error: float
    original_bytes: int
    parameter_bytes: float
    file_bytes: float

    def row(self, is_beaten: bool) -> str:
        """A row of the table."""
        star = "" if is_beaten else "★"
        return (
            f"| `{self.command}` | {star} | {self.seeds} | {self.validation_error:.2f} | "
            f"{self.test_error:.2f} | {self.parameter_bytes:,.0f} | "
            f"{self.original_bytes / self.parameter_bytes:.1f} | {self.file_bytes:,.0f} | "
            f"{self.original_bytes / self.file_bytes:.1f} |\n"
        )


def are_curves(groups: Iterable[list[Outcome]]) -> bool:
    """Whether the runs are points of curves: their recipe has an amount."""
    return all("amount" in outcome.options for group in groups for outcome in group)


def medians(runs: Runs) -> list[Median]:
    """One for each amount, method by method, from large to small."""
    found = []
    for name, group in runs.items():
        found.append(
            Median(
                command=_command(name),
                method=group[0].method,
                seeds=len(group),
                validation_error=statistics.median(o.validation_error for o in group),
                test_error=statistics.median(o.test_error for o in group),
                original_bytes=group[0].original_bytes,
                parameter_bytes=statistics.median(o.parameter_bytes for o in group),
                file_bytes=statistics.median(o.file_bytes for o in group),
            )
        )
    return sorted(found, key=lambda median: (median.method, -median.parameter_bytes))


def is_beaten(point: Median, points: Iterable[Median]) -> bool:
    """Whether one of ``points`` has no more bytes and no more errors than ``point``, and less of
    one of them."""
    mine = (point.parameter_bytes, point.test_error)
    places = {(other.parameter_bytes, other.test_error) for other in points}
    return any(p != mine and p[0] <= mine[0] and p[1] <= mine[1] for p in places)


def tables(runs: Runs) -> str:
    """The medians, with a star where none beats one, then all runs and their notes."""
    points = medians(runs)
    parts = [f"\n{_MEDIANS}", *(point.row(is_beaten(point, points)) for point in points)]
    parts.append(f"\nAll runs:\n\n| command |{HEAD[1:]}---|\n")
    of_runs = [(_command(name), outcome) for name, group in runs.items() for outcome in group]
    of_runs.sort(key=lambda pair: (pair[1].method, -pair[1].parameter_bytes))
    parts += [f"| `{command}` {outcome.row()}\n" for command, outcome in of_runs]
    parts += [f"\n`{command}`: {outcome.note}\n" for command, outcome in of_runs if outcome.note]
    return "".join(parts)


def _command(name: str) -> str:
    """Method and amount of a run's folder and command."""
    return name.partition("\n")[2].partition("models.cifar10_methods ")[2]
