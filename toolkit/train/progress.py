# SPDX-License-Identifier: Apache-2.0
"""Progress of training on stderr: a bar on a terminal, a line for each epoch in a pipe."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Shows a run of ``epochs`` epochs, ``done`` of them already; nothing where not ``shown``."""

    def __init__(self, shown: bool, epochs: int, done: int = 0) -> None:
        self._epochs, self._done = epochs, done
        self._lines = shown and not sys.stderr.isatty()
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("training", total=float(epochs))
            self._bar.start()

    def step(self, batch: int, batches: int) -> None:
        """After a step: the number of the batch in its epoch."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done + batch / batches)

    def epoch(self, record: dict[str, float]) -> None:
        """After an epoch."""
        self._done = int(record["epoch"])
        shown = ("loss", "validation_loss", "validation_metric")
        values = [
            f"{name.replace('_', ' ')} {record[name]:.5g}" for name in shown if name in record
        ]
        others = [
            f"{name} {value:.6g}"
            for name, value in record.items()
            if name not in (*shown, "epoch", "step", "rate") and not name.startswith("loss.")
        ]
        text = f"epoch {self._done}/{self._epochs}: {', '.join([*values, *others])}"
        if self._bar is not None:
            self._bar.update(self._task, completed=float(self._done), description=text)
        elif self._lines:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
