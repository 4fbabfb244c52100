# SPDX-License-Identifier: Apache-2.0
"""What the command line prints: tables and a live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.search import TracePoint

STAGES = {
    "read": "reading the model",
    "inputs": "running the original",
    "moments": "measuring the inputs of every layer",
    "search": "searching quantisation steps",
    "scan": "measuring each weight under each scheme",
    "refit": "fitting layers again in order",
    "sweep": "computing the points of the curve",
    "sensitivity": "measuring how much each weight matters",
    "prune": "choosing channels and refitting layers",
    "encode": "encoding",
    "write": "writing",
    "verify": "verifying the written file",
}


@contextmanager
def progress_line(quiet: bool) -> Iterator[ProgressLine]:
    """Shows progress on stderr: one changing line on a terminal, one line per stage in a pipe,
    nothing where `quiet`."""
    if quiet:
        yield ProgressLine(None)
    elif sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        with console.status("starting") as status:
            yield ProgressLine(status.update)
    else:
        yield ProgressLine(lambda text: print(text, file=sys.stderr, flush=True), stages_only=True)


class ProgressLine:
    """Called with a stage and a detail."""

    def __init__(self, show: object, stages_only: bool = False) -> None:
        self._show = show
        self._stages_only = stages_only
        self._seen: set[str] = set()

    def __call__(self, stage: str, detail: str) -> None:
        if not callable(self._show) or (self._stages_only and stage in self._seen):
            return
        self._seen.add(stage)
        text = STAGES.get(stage, stage)
        hint = "" if self._stages_only or not detail else f" · {_escaped(detail)}"
        self._show(text + hint)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout: columns of text left, the others right; tab-separated in a pipe."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", header_style="bold")
        for index, header in enumerate(headers):
            table.add_column(header, justify="left" if index == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    if title:
        print(title)
    print("\t".join(headers))
    for row in rows:
        print("\t".join(row))


def size_text(num_bytes: float) -> str:
    """Bytes for people: 10^6 bytes are a MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            value = num_bytes / factor
            return f"{value:.2f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{num_bytes:.0f} B"


def db_text(value: float | None) -> str:
    """Decibels for people."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "exact" if value > 0 else "lost"
    return f"{value:.1f} dB"


def shape_text(shape: Sequence[int]) -> str:
    """Dimensions, e.g. `384×1536`."""
    return "×".join(str(dim) for dim in shape) or "scalar"


def share_text(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.1f} %"


def trace_text(point: TracePoint) -> str:
    """One candidate of a search in words."""
    kind = "measured" if point.measured else "estimated"
    return f"2^{point.knob:+.2f} RMS: {size_text(point.num_bytes)} {kind}, {db_text(point.sqnr_db)}"
