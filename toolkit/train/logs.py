# SPDX-License-Identifier: Apache-2.0
"""Logs of a run: a CSV file with a row for each epoch, and TensorBoard's files on request."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import InputError
from toolkit.output_file import write_failure, write_text

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

LOG = "log.csv"
BOARD = "tensorboard"


class RunLog:
    """Writes records of epochs into ``folder``; None writes nothing. With ``tensorboard`` also
    into a folder ``tensorboard`` there, which it empties first.

    Raises:
        InputError: TensorBoard's files are asked for and the package tensorboardX is missing.
        OutputError: a file cannot be written.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = False) -> None:
        self._folder, self._tensorboard = folder, tensorboard
        self._board: SummaryWriter | None = None
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
                self._board = _board(self._folder / BOARD)
            for record in history[self._shown :]:
                for name, value in record.items():
                    if name != "step":
                        self._board.add_scalar(name, value, int(record["step"]))
            self._board.flush()
        self._shown = len(history)

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> SummaryWriter:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard: the package tensorboardX is not installed: pip install tensorboardX"
        ) from error
    try:
        if folder.is_dir():
            shutil.rmtree(folder)
        return SummaryWriter(str(folder))
    except OSError as error:
        raise write_failure(folder, error) from error
