# SPDX-License-Identifier: Apache-2.0
"""Devices that weights are decoded on, as far as load mode needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from runtime import c_structures
from runtime.wide import WideReader


@dataclasses.dataclass(frozen=True)
class Work:
    """A tensor to decode.

    Attributes:
        reader: of the blob.
        tensor: its number.
        output: what to write, with addresses in the device's memory.
        address: where to write, in the device's memory.
        num_bytes: of the output.
    """

    reader: WideReader
    tensor: int
    output: c_structures.Output
    address: int
    num_bytes: int


class Memory(Protocol):
    """Memory of a device, given back with the object."""

    address: int

    def upload(self, data: npt.NDArray[Any]) -> None:
        """Copy an array of the host to the beginning."""


class DecodingDevice(Protocol):
    """What load mode decodes on.

    Attributes:
        name: as ONNX Runtime's OrtValue names it, "cuda" or "cpu".
        number: of the device.
    """

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...

    def allocate(self, num_bytes: int) -> Memory:
        """Take memory."""

    def decode(self, works: Sequence[Work]) -> None:
        """Decode tensors and wait for them.

        Raises:
            CodecError: a blob does not decode, or a symbol has no entry of its codebook.
            DeviceError: the device cannot.
        """


@dataclasses.dataclass(frozen=True)
class CudaDevice:
    """A CUDA device."""

    number: int = 0
    name: str = "cuda"

    def allocate(self, num_bytes: int) -> Memory:
        from runtime import gpu

        return gpu.DeviceMemory(num_bytes, self.number)

    def decode(self, works: Sequence[Work]) -> None:
        from runtime import gpu

        requests = [
            gpu.Request(
                gpu.DeviceDecoder(work.reader, work.tensor, device=self.number),
                work.output,
                work.address,
                work.num_bytes,
            )
            for work in works
        ]
        gpu.decode_together(requests)
        gpu.wait(self.number)
        for request in requests:
            request.decoder.check_decoded()
