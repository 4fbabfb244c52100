# SPDX-License-Identifier: Apache-2.0
"""Logs of training: TensorBoard's files, read by their specification and by TensorBoard itself."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.train_tasks import digits_net, digits_task
from toolkit.errors import OutputError
from toolkit.train import Callback, Trainer
from toolkit.train.event_file import EventFile, _checksum

OPTIONS: dict[str, Any] = {"optimizer": {"rate": 0.1}, "progress": False, "tensorboard": True}


def varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def message(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message: numbers and contents."""
    found, place = [], 0
    while place < len(data):
        key, place = varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = varint(data, place)
            found.append((key >> 3, value))
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            assert kind == 2
            size, place = varint(data, place)
        found.append((key >> 3, data[place : place + size]))
        place += size
    return found


def scalars(path: Path) -> tuple[bytes, dict[str, list[tuple[int, float]]]]:
    """The version, and the values of each tag by step; every checksum is checked."""
    content, place, version = path.read_bytes(), 0, b""
    found: dict[str, list[tuple[int, float]]] = {}
    while place < len(content):
        head = content[place : place + 8]
        (size,) = struct.unpack("<Q", head)
        assert content[place + 8 : place + 12] == _checksum(head)
        data = content[place + 12 : place + 12 + size]
        assert content[place + 12 + size : place + 16 + size] == _checksum(data)
        place += 16 + size
        fields = dict(message(data))
        version = fields.get(3, version)
        for number, value in message(fields.get(5, b"")):
            assert number == 1
            one = dict(message(value))
            (scalar,) = struct.unpack("<f", one[2])
            found.setdefault(one[1].decode(), []).append((fields[2], scalar))
    return version, found


class StopAfter(Callback):
    """Interrupts the third epoch."""

    def before_forward(self, trainer: Trainer) -> None:
        if trainer.epoch == 2:
            raise KeyboardInterrupt


def test_the_checksum_is_crc_32c() -> None:
    """The value that the literature gives for the digits, turned and moved as the format says."""
    crc = 0xE3069283
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert _checksum(b"123456789") == struct.pack("<I", masked)


def test_tensorboards_file_holds_what_the_run_recorded(tmp_path: Path) -> None:
    trainer = Trainer(digits_net(), digits_task(), folder=tmp_path, epochs=3, **OPTIONS)
    history = trainer.fit().history
    (file,) = (tmp_path / "tensorboard").iterdir()
    version, found = scalars(file)
    assert version == b"brain.Event:2"
    assert set(found) == set(history[0]) - {"step"}
    for tag, values in found.items():
        assert [step for step, _ in values] == [record["step"] for record in history]
        for (_, value), record in zip(values, history, strict=True):
            assert math.isclose(value, record[tag], rel_tol=1e-6)


def test_a_resumed_run_leaves_one_whole_file(tmp_path: Path) -> None:
    options = {**OPTIONS, "epochs": 4}
    with pytest.raises(KeyboardInterrupt):
        Trainer(digits_net(), digits_task(), [StopAfter()], folder=tmp_path, **options).fit()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert len(scalars(file)[1]["loss"]) == 2
    calm = [type("StopAfter", (Callback,), {})()]
    for _ in range(2):  # the second has nothing left to do, and loses nothing
        again = Trainer(digits_net(), digits_task(), calm, folder=tmp_path, **options)
        assert len(again.fit(resume=True).history) == 4
        assert [step for step, _ in scalars(file)[1]["loss"]] == [20, 40, 60, 80]


def test_tensorboard_itself_reads_the_file(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed",
    )
    file = EventFile(tmp_path)
    for step, value in ((1, 0.5), (300, -2.0), (70_000, float("nan"))):
        file.add(step, {"loss": value, "validation_metric": 1.0})
    file.close()
    found = reader.EventAccumulator(str(tmp_path))
    found.Reload()
    assert found.Tags()["scalars"] == ["loss", "validation_metric"]
    events = found.Scalars("loss")
    assert [event.step for event in events] == [1, 300, 70_000]
    assert [event.value for event in events[:2]] == [0.5, -2.0] and math.isnan(events[2].value)


def test_a_file_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="log"):
        EventFile(tmp_path / "log")
    file = EventFile(tmp_path)
    file.close()
    with pytest.raises(ValueError, match="is closed"):
        file.add(1, {"loss": 1.0})
