# SPDX-License-Identifier: Apache-2.0
"""Scalars in the files that TensorBoard reads, written here so that nothing needs to be installed.

A file is a row of records: the length of the data (uint64), its checksum, the data, their checksum
(both uint32, CRC-32C, turned and moved so that checksums within data do no harm); little endian.
The data are protobuf messages: Event {1: wall_time, double; 2: step, int64; 3: file_version,
string; 5: summary}, Summary {1: value, repeated}, Value {1: tag, string; 2: simple_value, float}.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from toolkit.output_file import write_failure

_NAME = "events.out.tfevents.training"  # TensorBoard looks for files with tfevents in their name
_VERSION = b"brain.Event:2"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_MASK_DELTA = 0xA282EAD8


class EventFile:
    """Scalars by step in a new file of ``folder``, which replaces one that is there.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _NAME
        self._file: BinaryIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
        except OSError as error:
            raise write_failure(self.path, error) from error
        self._record(_field(3, _BYTES, _VERSION))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Writes ``values`` of one step, by tag."""
        summary = b"".join(
            _field(
                1,
                _BYTES,
                _field(1, _BYTES, tag.encode()) + _field(2, _FIXED32, struct.pack("<f", value)),
            )
            for tag, value in values.items()
        )
        self._record(_field(2, _VARINT, _varint(step)) + _field(5, _BYTES, summary))

    def close(self) -> None:
        """Closes the file; more cannot be written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _record(self, event: bytes) -> None:
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        data = _field(1, _FIXED64, struct.pack("<d", time.time())) + event
        length = struct.pack("<Q", len(data))
        try:
            self._file.write(length + _checksum(length) + data + _checksum(data))
            self._file.flush()
        except OSError as error:
            raise write_failure(self.path, error) from error


def _field(number: int, wire_type: int, content: bytes) -> bytes:
    """A field of a protobuf message."""
    size = _varint(len(content)) if wire_type == _BYTES else b""
    return _varint(number << 3 | wire_type) + size + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _checksum(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    turned = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (turned + _MASK_DELTA) & 0xFFFFFFFF)


def _remainder(value: int) -> int:
    """Of a byte, by the polynomial 0x1EDC6F41 with its bits reversed."""
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_remainder(byte) for byte in range(256)]
