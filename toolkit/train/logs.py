# SPDX-License-Identifier: Apache-2.0
"""Logs of a run: a CSV file with a row for each epoch, and TensorBoard's files on request."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from toolkit.output_file import write_text
from toolkit.train.event_file import EventFile

LOG = "log.csv"
BOARD = "tensorboard"


class RunLog:
    """Writes records of epochs into ``folder``; None writes nothing. With ``tensorboard`` also
    into a folder ``tensorboard`` there."""

    def __init__(self, folder: Path | None, tensorboard: bool = False) -> None:
        self._folder, self._tensorboard = folder, tensorboard
        self._board: EventFile | None = None
        self._shown = 0

    def write(self, history: list[dict[str, float]]) -> None:
        """All records so far: a resumed run replaces what came after its checkpoint."""
        if self._folder is None:
            return
        names = list(dict.fromkeys(name for record in history for name in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self._folder / LOG, text.getvalue())
        if self._tensorboard:
            if self._board is None:
                self._board = EventFile(self._folder / BOARD)
            for record in history[self._shown :]:
                scalars = {name: value for name, value in record.items() if name != "step"}
                self._board.add(int(record["step"]), scalars)
        self._shown = len(history)

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._board is not None:
            self._board.close()
