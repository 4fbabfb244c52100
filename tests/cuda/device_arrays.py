# SPDX-License-Identifier: Apache-2.0
"""NumPy arrays on a CUDA device and back, by torch or CuPy, whichever is there; and why a test of
the GPU is skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime import gpu

Array = npt.NDArray[Any]


def reason() -> str:
    """Why the tests of the GPU cannot run here; empty where they can."""
    problem = gpu.why_not()
    if problem:
        return f"no GPU: {problem}"
    try:
        import torch
    except ImportError:
        return "torch is not installed, which holds the arrays"
    return "" if torch.cuda.is_available() else "torch has no CUDA"


REASON = reason()
needs_gpu = pytest.mark.skipif(bool(REASON), reason=REASON or "-")


class DeviceArray:
    """Memory on the device, poisoned where it is new.

    Attributes:
        address: in the device's memory.
        nbytes: its size.
        memory: torch's tensor of bytes.
    """

    def __init__(self, num_bytes: int, offset: int = 0) -> None:
        import torch

        self._memory = torch.full((num_bytes + offset,), 0xA5, dtype=torch.uint8, device="cuda")
        self._offset = offset
        self.address = self._memory.data_ptr() + offset
        self.memory = self._memory[offset:]
        self.nbytes = num_bytes

    @classmethod
    def of(cls, array: Array) -> DeviceArray:
        """A copy of an array."""
        import torch

        made = cls(array.nbytes)
        raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).copy()
        made._memory.copy_(torch.from_numpy(raw))
        return made

    def numpy(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
        """A copy on the host, after everything that runs."""
        import torch

        torch.cuda.synchronize()
        raw = self._memory[self._offset :].cpu().numpy()
        return np.frombuffer(raw.tobytes(), dtype).reshape(shape)


def bytes_at(address: int, num_bytes: int) -> Array:
    """A copy of memory of the device on the host, uint8 [num_bytes], after everything that runs."""
    import torch

    class Place:
        __cuda_array_interface__ = {
            "shape": (num_bytes,), "typestr": "|u1", "data": (address, False), "version": 3,
        }  # fmt: skip

    torch.cuda.synchronize()
    return torch.as_tensor(Place(), device="cuda").cpu().numpy()
