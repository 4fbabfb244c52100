# SPDX-License-Identifier: Apache-2.0
"""Memory of a device, every access to which is checked: where it lies, how it is aligned, and
that what is read has been written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.ptx.errors import BadAccessError, PtxError
from tests.ptx.races import GlobalRaces

Array = np.ndarray[Any, Any]
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SHIFT = {1: 0, 2: 1, 4: 2, 8: 3}
_ALLOCATED, _WRITTEN = 1, 3  # states of a byte; 0: nobody's
_POISON = 0xA5


def _first(wrong: Array) -> int:
    return int(np.flatnonzero(wrong)[0])


class Bytes:
    """Bytes with a state each. Offsets are int64 or uint64 [n], elements 1, 2, 4 or 8 bytes."""

    def __init__(self, data: Array, state: Array, size: int, what: str) -> None:
        self.size = size
        self.what = what
        self.data = data
        self.state = state
        self._values = {w: self.data.view(t) for w, t in UNSIGNED.items()}
        self._states = {w: self.state.view(t) for w, t in UNSIGNED.items()}
        self._allocated = {w: t(int("01" * w, 16)) for w, t in UNSIGNED.items()}
        self._written = {w: t(int("03" * w, 16)) for w, t in UNSIGNED.items()}

    def mark(self, first: int, size: int, *, written: bool) -> None:
        """Say that bytes belong to somebody, and whether they have values."""
        self.state[first : first + size] = _WRITTEN if written else _ALLOCATED

    def _places(self, offset: Array, width: int, count: int) -> Array:
        whole = width * count
        if whole > 1 and np.count_nonzero(wrong := offset & offset.dtype.type(whole - 1)):
            place = _first(wrong)
            raise BadAccessError(
                f"address {int(offset[place]):#x} of {self.what} is no multiple of {whole}", place
            )
        outside = (offset < 0) | (offset > self.size - whole)
        if np.count_nonzero(outside):
            place = _first(outside)
            raise BadAccessError(
                f"{whole} bytes at {int(offset[place]):#x} are outside of {self.what}", place
            )
        return offset >> _SHIFT[width]

    def load(self, offset: Array, width: int, count: int) -> list[Array]:
        """`count` neighbours of each thread."""
        at = self._places(offset, width, count)
        values, states, wanted = self._values[width], self._states[width], self._written[width]
        found = []
        for n in range(count):
            place = at + n if n else at
            if np.count_nonzero(wrong := states[place] != wanted):
                first = _first(wrong)
                state = states[place[first]] & self._allocated[width]
                why = "never written" if state == self._allocated[width] else "nobody's"
                where = f"{int(offset[first]) + n * width:#x} of {self.what}"
                raise BadAccessError(f"{width} bytes at {where} are {why}", first)
            found.append(values[place])
        return found

    def store(self, offset: Array, width: int, stored: Sequence[Array]) -> None:
        at = self._places(offset, width, len(stored))
        values, states = self._values[width], self._states[width]
        allocated, written = self._allocated[width], self._written[width]
        for n, value in enumerate(stored):
            place = at + n if n else at
            if np.count_nonzero(wrong := (states[place] & allocated) != allocated):
                first = _first(wrong)
                where = f"{int(offset[first]) + n * width:#x} of {self.what}"
                raise BadAccessError(f"{width} bytes at {where} are nobody's", first)
            values[place] = value
            states[place] = written


def poisoned(size: int, what: str) -> Bytes:
    """New bytes, nobody's yet."""
    padded = -(-size // 16) * 16 + 16
    return Bytes(np.full(padded, _POISON, np.uint8), np.zeros(padded, np.uint8), size, what)


class DeviceMemory:
    """Memory of this process that stands for a device's. Addresses are this process's.

    Between allocations lies nobody's memory, and what is freed becomes nobody's again. It is
    handed out once only.
    """

    ALIGNMENT = 256  # of cudaMalloc
    _GUARD = 256

    def __init__(self, size: int = 1 << 28) -> None:
        # Pages come from the system when they are first used.
        raw = np.zeros(size + self.ALIGNMENT, np.uint8)
        first = -raw.ctypes.data % self.ALIGNMENT
        data = raw[first : first + size]
        self.bytes = Bytes(data, np.zeros(size, np.uint8), size, "the device's memory")
        self.base = int(data.ctypes.data)
        self._next = 0
        self._sizes: dict[int, int] = {}
        self._races: GlobalRaces | None = None

    @property
    def races(self) -> GlobalRaces:
        """Made when it is first asked for."""
        if self._races is None:
            self._races = GlobalRaces(self.bytes.size)
        return self._races

    def allocate(self, size: int) -> int:
        """The address of new bytes, which have no values.

        Raises:
            MemoryError: there are none left.
        """
        first = self._next
        taken = -(-(size + self._GUARD) // self.ALIGNMENT) * self.ALIGNMENT
        if first + taken > self.bytes.size:
            raise MemoryError
        self._next += taken
        self._sizes[first] = size
        self.bytes.data[first : first + size] = _POISON
        self.bytes.mark(first, size, written=False)
        return self.base + first

    def free(self, address: int) -> None:
        first = address - self.base
        size = self._sizes.pop(first)
        self.bytes.state[first : first + size] = 0
        if not self._sizes:
            self._next = 0

    @property
    def allocations(self) -> int:
        return len(self._sizes)

    def offset_of(self, address: int, size: int) -> int:
        """Where bytes that one allocation has begin; the host's copies are checked by it.

        Raises:
            PtxError: they are not all of one allocation.
        """
        first = address - self.base
        if (
            first < 0
            or first + size > self.bytes.size
            or not self.bytes.state[first : first + size].all()
        ):
            raise PtxError(f"{size} bytes at {address:#x} are not memory of the device")
        return first

    def put(self, address: int, values: bytes | Array) -> None:
        """Copy from the host."""
        raw = np.frombuffer(values, np.uint8) if isinstance(values, bytes) else values
        first = self.offset_of(address, raw.nbytes)
        self.bytes.data[first : first + raw.nbytes] = raw.reshape(-1).view(np.uint8)
        self.bytes.mark(first, raw.nbytes, written=True)

    def is_written(self, address: int, size: int) -> bool:
        """Whether all bytes have values."""
        first = self.offset_of(address, size)
        return bool((self.bytes.state[first : first + size] == _WRITTEN).all())

    def get(self, address: int, size: int) -> Array:
        """A copy on the host, uint8 [size]."""
        first = self.offset_of(address, size)
        return self.bytes.data[first : first + size].copy()
