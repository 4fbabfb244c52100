# SPDX-License-Identifier: Apache-2.0
"""A device whose memory is the host's, and whose decoder is the GPU's program run lane by lane."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import library
from runtime.decoding_device import Memory, Work


class HostMemory:
    def __init__(self, num_bytes: int) -> None:
        self._memory = np.zeros(num_bytes + 255, np.uint8)
        self._begin = -self._memory.ctypes.data % 256
        self.address = self._memory.ctypes.data + self._begin

    def upload(self, data: npt.NDArray[Any]) -> None:
        end = self._begin + data.nbytes
        self._memory[self._begin : end] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)


@dataclasses.dataclass(frozen=True)
class HostDevice:
    """ONNX Runtime's CPU provider reads its memory."""

    number: int = 0
    name: str = "cpu"

    def allocate(self, num_bytes: int) -> Memory:
        return HostMemory(num_bytes)

    def decode(self, works: Sequence[Work]) -> None:
        for work in works:
            status = library.load().tk_emulate_decode(
                work.reader.handle, work.tensor, -1, ctypes.byref(work.output),
                work.address, work.num_bytes,
            )  # fmt: skip
            library.check(status, f"decoding tensor {work.tensor}")
