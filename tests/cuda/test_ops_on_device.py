# SPDX-License-Identifier: Apache-2.0
"""The library's ops for CUDA on a GPU, by a stand-in for ONNX Runtime: values as on the CPU."""

from __future__ import annotations

from tests.cuda.device_arrays import DeviceArray, needs_gpu
from tests.op_checks import Array, OpChecks


@needs_gpu
class TestOpsOnDevice(OpChecks):
    def memory(self, num_bytes: int) -> DeviceArray:
        return DeviceArray(num_bytes)

    def copy_of(self, array: Array) -> DeviceArray:
        return DeviceArray.of(array)
