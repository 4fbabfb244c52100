# SPDX-License-Identifier: Apache-2.0
"""The folder of a sweep: its points and their recipes, kept as soon as they are there."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, OutputError, one_line
from toolkit.output_file import write_text
from toolkit.report import to_json


@dataclass
class SweepPoint:
    """One file. `knob` is what it was made for; `num_bytes` are of the whole file, as it would be
    written. `fitted_sqnr_db` is of data that was fitted to, the other figures of data kept apart;
    `score` is the metric's."""

    knob: float
    num_bytes: int
    sqnr_db: float
    fitted_sqnr_db: float
    cosine: float
    top1_agreement: float | None
    healthy: bool
    score: float | None
    recipe: str
    seconds: float


@dataclass(frozen=True)
class SweepTask:
    """What a worker needs to compute points of one sweep, on any machine that sees the files."""

    model: str
    calibration: str | None
    metric: str | None
    labels: str | None
    folder: str
    threads: int


def open_folder(home: Path, name: str) -> None:
    """Makes the folder; refuses one that holds another sweep's points."""
    mark = home / "sweep.txt"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if mark.exists() and mark.read_text(encoding="utf-8") != name:
            raise InputError(f"{home}: holds the points of a sweep of other files, or options")
        if not mark.exists():
            write_text(mark, name)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{home}: is no folder") from error
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{home}: points cannot be kept there ({one_line(error)})") from error


def point_file(home: Path, knob: float, suffix: str) -> Path:
    """Where the point at `knob` is kept: its figures ("json") or its recipe ("yaml")."""
    return home / f"{knob:+.6f}.{suffix}"


def read_object(place: Path) -> dict[str, Any] | None:
    """A JSON object that is kept; None where there is none, or no whole one."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_point(home: Path, knob: float) -> SweepPoint | None:
    """A point that is kept; None where there is none, or no whole one."""
    values = read_object(point_file(home, knob, "json"))
    if values is None or not point_file(home, knob, "yaml").is_file():
        return None
    try:
        for name in ("sqnr_db", "fitted_sqnr_db"):
            if values[name] is None:  # JSON has no infinity
                values[name] = math.inf if values["healthy"] else -math.inf
        return SweepPoint(**values)
    except (KeyError, TypeError):
        return None


def keep_point(home: Path, point: SweepPoint, recipe: str) -> None:
    """The recipe first: a point whose figures are there is whole. Raises `OutputError`."""
    write_text(Path(point.recipe), recipe)
    write_text(point_file(home, point.knob, "json"), to_json(asdict(point)))
