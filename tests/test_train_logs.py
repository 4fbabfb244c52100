# SPDX-License-Identifier: Apache-2.0
"""Logs of training: TensorBoard's files."""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from tests.train_tasks import digits_net, digits_task
from toolkit.errors import InputError, OutputError
from toolkit.train import Callback, Trainer

OPTIONS: dict[str, Any] = {"optimizer": {"rate": 0.1}, "progress": False, "tensorboard": True}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The values of each tag by step, of the only file in ``folder``: records of a length, its
    checksum, an event, its checksum."""
    (file,) = folder.iterdir()
    content, place = file.read_bytes(), 0
    found: dict[str, list[tuple[int, float]]] = {}
    while place < len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        event = Event.FromString(content[place + 12 : place + 12 + size])
        place += 16 + size
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


class StopAfter(Callback):
    """Interrupts the third epoch."""

    def before_forward(self, trainer: Trainer) -> None:
        if trainer.epoch == 2:
            raise KeyboardInterrupt


def test_tensorboards_file_holds_what_the_run_recorded(tmp_path: Path) -> None:
    trainer = Trainer(digits_net(), digits_task(), folder=tmp_path, epochs=3, **OPTIONS)
    history = trainer.fit().history
    found = scalars(tmp_path / "tensorboard")
    assert set(found) == set(history[0]) - {"step"}
    for tag, values in found.items():
        assert [step for step, _ in values] == [record["step"] for record in history]
        for (_, value), record in zip(values, history, strict=True):
            assert math.isclose(value, record[tag], rel_tol=1e-6)


def test_a_resumed_run_leaves_one_whole_file(tmp_path: Path) -> None:
    options = {**OPTIONS, "epochs": 4}
    with pytest.raises(KeyboardInterrupt):
        Trainer(digits_net(), digits_task(), [StopAfter()], folder=tmp_path, **options).fit()
    board = tmp_path / "tensorboard"
    assert len(scalars(board)["loss"]) == 2
    calm = [type("StopAfter", (Callback,), {})()]
    for _ in range(2):  # the second has nothing left to do, and loses nothing
        again = Trainer(digits_net(), digits_task(), calm, folder=tmp_path, **options)
        assert len(again.fit(resume=True).history) == 4
        assert [step for step, _ in scalars(board)["loss"]] == [20, 40, 60, 80]


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    trainer = Trainer(digits_net(), digits_task(), folder=tmp_path, epochs=1, **OPTIONS)
    with pytest.raises(OutputError, match="tensorboard"):
        trainer.fit()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    trainer = Trainer(digits_net(), digits_task(), folder=tmp_path, epochs=1, **OPTIONS)
    with pytest.raises(InputError, match="tensorboardX is not installed"):
        trainer.fit()
