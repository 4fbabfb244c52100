# SPDX-License-Identifier: Apache-2.0
"""Logs of a run: a CSV file with a row for each epoch, and TensorBoard's files on request."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from toolkit.errors import InputError
from toolkit.output_file import write_text

LOG = "log.csv"


class RunLog:
    """Writes records of epochs into ``folder``; None writes nothing.

    Raises InputError where TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = False) -> None:
        self._folder, self._board = folder, _board(folder) if tensorboard and folder else None
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
        if self._board is not None:
            for record in history[self._shown :]:
                for name, value in record.items():
                    self._board.add_scalar(name, value, int(record["step"]))
            self._board.flush()
        self._shown = len(history)

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard: the package tensorboard is not installed: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))
