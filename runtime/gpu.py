# SPDX-License-Identifier: Apache-2.0
"""Decoding on a CUDA device, in memory that belongs to the caller (CuPy, torch, ONNX Runtime).

    info = gpu.examine()
    decoder = gpu.DeviceDecoder(reader, 0)
    decoder.decode_into(out.data.ptr, out.nbytes, OutputSpec("symbols", shape), stream=stream.ptr)

Nothing here touches CUDA when it is imported.
"""

from __future__ import annotations

import ctypes
import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import c_structures, library
from runtime.errors import Status
from runtime.gpu_output import LAYOUTS, Layout, OutputSpec, describe_output
from runtime.wide import WideReader


@dataclasses.dataclass(frozen=True)
class GpuState:
    """What the op library and the machine offer.

    Attributes:
        built: the library has CUDA code.
        architectures: for which devices it was built, as CMake names them.
        runtime_version: of the CUDA in the library, 13000 for 13.0.
        driver_version: newest CUDA that the driver knows; 0 where there is no driver.
        num_devices: CUDA devices.
        name: of the device asked about.
        capability: of that device, 90 for 9.0.
        multiprocessors: of that device.
        total_bytes, free_bytes: its memory.
        problem: why it cannot be used; empty where it can.
    """

    built: bool
    architectures: str
    runtime_version: int
    driver_version: int
    num_devices: int
    name: str
    capability: int
    multiprocessors: int
    total_bytes: int
    free_bytes: int
    problem: str


def examine(device: int = 0) -> GpuState:
    """Look at the CUDA code, the driver and a device; never raises for what is missing."""
    info = c_structures.CudaInfo()
    library.load().tk_cuda_get_info(device, ctypes.byref(info))
    return GpuState(
        built=bool(info.built),
        architectures=info.architectures.decode(),
        runtime_version=info.runtime_version,
        driver_version=info.driver_version,
        num_devices=info.num_devices,
        name=info.name.decode(errors="replace"),
        capability=info.capability,
        multiprocessors=info.multiprocessors,
        total_bytes=info.total_bytes,
        free_bytes=info.free_bytes,
        problem=info.problem.decode(errors="replace"),
    )


class DeviceDecoder:
    """A tensor of a blob, or its matrix of all symbols, ready to be decoded on a device.

    The blob is copied to the device once for all decoders of one reader.

    Args:
        reader: an open blob.
        tensor: its number; -1 for the matrix [num_lanes, num_steps] of all symbols.
        device: number of the device.
        layout: how the tables lie in the device's memory.

    Raises:
        DeviceError: there is no device that can be used, or it has not enough memory.
        CodecError: the arguments contradict each other.
    """

    def __init__(
        self, reader: WideReader, tensor: int, *, device: int = 0, layout: Layout = "auto"
    ) -> None:
        self._library = library.load()
        self._handle = ctypes.c_void_p()
        status = self._library.tk_cuda_open(
            reader.handle, tensor, device, LAYOUTS[layout], ctypes.byref(self._handle)
        )
        library.check(status, f"preparing tensor {tensor} for device {device}")
        self._tensor = tensor
        weakref.finalize(self, self._library.tk_cuda_close, self._handle)

    def decode_into(
        self,
        address: int,
        num_bytes: int,
        spec: OutputSpec | None = None,
        *,
        stream: int = 0,
        **inputs: Any,
    ) -> None:
        """Decode on a stream and return at once.

        Args:
            address: where to write, in the device's memory.
            num_bytes: of the output.
            spec: what to write; None for the matrix of all symbols.
            stream: a `cudaStream_t`.
            **inputs: as in `describe_output`, with addresses in the device's memory.
        """
        output = c_structures.Output(inner=1) if spec is None else describe_output(spec, **inputs)
        status = self._library.tk_cuda_decode(
            self._handle, ctypes.byref(output), address, num_bytes, stream
        )
        library.check(status, f"decoding tensor {self._tensor}")

    @property
    def handle(self) -> ctypes.c_void_p:
        """The library's decoder, for as long as this object lives."""
        return self._handle

    def check_decoded(self) -> None:
        """Raise `CodecError` where a decoding that has ended went wrong; waits for none."""
        library.check(
            self._library.tk_cuda_decoded(self._handle), f"decoding tensor {self._tensor}"
        )

    def describe(self) -> tuple[c_structures.PlanInfo, int, int]:
        """The first launch, and the bytes of device memory of the blob and of the plan."""
        info, blob, image = c_structures.PlanInfo(), ctypes.c_int64(), ctypes.c_int64()
        status = self._library.tk_cuda_describe(
            self._handle, ctypes.byref(info), ctypes.byref(blob), ctypes.byref(image)
        )
        library.check(status, f"describing tensor {self._tensor}")
        return info, blob.value, image.value


@dataclasses.dataclass(frozen=True)
class Request:
    """A tensor to decode.

    Attributes:
        decoder: of the tensor.
        output: what to write, with addresses in the device's memory.
        address: where to write, in the device's memory.
        num_bytes: of the output.
    """

    decoder: DeviceDecoder
    output: c_structures.Output
    address: int
    num_bytes: int


def decode_together(requests: Sequence[Request], *, stream: int = 0) -> None:
    """Decode several tensors on a stream and return at once: those of one blob that go the same way
    by one kernel, which fills a device where one tensor would not.

    Args:
        requests: of decoders of one device; their outputs must not overlap.
        stream: a `cudaStream_t`.

    Raises:
        DeviceError: the device cannot.
        CodecError: a request contradicts itself.
    """
    if not requests:
        return
    held = (c_structures.DecodeRequest * len(requests))(
        *(
            c_structures.DecodeRequest(
                each.decoder.handle, ctypes.pointer(each.output), each.address, each.num_bytes
            )
            for each in requests
        )
    )
    status = library.load().tk_cuda_decode_all(held, len(requests), stream)
    library.check(status, f"decoding {len(requests)} tensors")


class DeviceMemory:
    """Memory of a device, given back with the object.

    Args:
        num_bytes: how many.
        device: number of the device.

    Raises:
        DeviceError: there is no such device, or it has not enough.
    """

    def __init__(self, num_bytes: int, device: int = 0) -> None:
        self._library, self._device, memory = library.load(), device, ctypes.c_void_p()
        status = self._library.tk_cuda_allocate(device, num_bytes, ctypes.byref(memory))
        library.check(status, f"allocating {num_bytes:,} bytes on device {device}")
        self.address = memory.value or 0
        weakref.finalize(self, self._library.tk_cuda_free, device, memory)

    def upload(self, data: npt.NDArray[Any]) -> None:
        """Copy an array of the host to the beginning, and wait for the end."""
        data = np.ascontiguousarray(data)
        status = self._library.tk_cuda_upload(
            self._device, self.address, data.ctypes.data, data.nbytes
        )
        library.check(status, f"copying {data.nbytes:,} bytes to device {self._device}")


def wait(device: int = 0, *, stream: int = 0) -> None:
    """Wait for the work on a stream.

    Raises:
        DeviceError: work of the device failed.
    """
    library.check(library.load().tk_cuda_wait(device, stream), f"waiting for device {device}")


def why_not(device: int = 0) -> str:
    """Why a device cannot be used; empty where it can."""
    state = examine(device)
    if state.problem:
        return state.problem
    return "" if state.num_devices > device else Status.NO_DEVICE.name
