# SPDX-License-Identifier: Apache-2.0
"""The ops that decode and run on a GPU, by a stand-in for ONNX Runtime with products of torch."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from tests.cuda.device_arrays import DeviceArray, needs_gpu
from tests.fake_runtime import Operator, Tensor, fake_runtime
from tests.op_checks import Array
from tests.product_checks import Device, Network, ProductChecks, float32_samples, run
from tests.product_samples import product_samples


class Gpu(Device):
    """Runs come on torch's current stream."""

    @property
    def stream(self) -> int:  # type: ignore[override]
        import torch

        return int(torch.cuda.current_stream().cuda_stream)

    def memory(self, num_bytes: int) -> DeviceArray:
        return DeviceArray(num_bytes)

    def copy_of(self, array: Array) -> DeviceArray:
        return DeviceArray.of(array)

    def tensor(self, of: Tensor) -> Any:
        """torch's, in the same memory; of a weight inside of a buffer, too."""
        import torch

        kind = {1: torch.float32, 10: torch.float16}[of.element_type]
        size = int(np.prod(of.shape)) * kind.itemsize
        begin = max(address for address in self.arrays if address <= of.address)
        memory = self.arrays[begin].memory  # type: ignore[attr-defined]
        place = of.address - begin
        return memory[place : place + size].view(kind).view(of.shape)

    def multiply(self, operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
        import torch

        x, weight, *bias = (self.tensor(each) for each in inputs)
        attributes = operator.attributes
        if operator.name == "Conv":
            begin = attributes.get("pads", [0, 0])[:2]  # the samples have as many at the end
            made = torch.nn.functional.conv2d(
                x,
                weight,
                bias[0] if bias else None,
                stride=attributes.get("strides", 1),
                padding=begin,
                groups=attributes["group"],
            )
        else:
            if attributes.get("transA"):
                x = x.T
            made = x @ (weight.T if attributes.get("transB") else weight)
            made = made + bias[0] if bias else made
        self.arrays[output.address].memory.view(made.dtype).copy_(made.reshape(-1))  # type: ignore[attr-defined]


@needs_gpu
class TestProductsOnDevice(ProductChecks):
    def device(self) -> Device:
        return Gpu()

    def test_products_on_a_stream_of_their_own(self) -> None:
        import torch

        sample = next(product_samples())
        with torch.cuda.stream(torch.cuda.Stream()):
            found = run(Gpu(), sample, runs=20)
        np.testing.assert_allclose(found, sample.expected, rtol=2e-2, atol=2e-2)

    def test_a_capture_takes_the_second_stream_along(self) -> None:
        import torch

        with fake_runtime() as runtime, ExitStack() as stack:
            network = Network(Gpu(), runtime, stack, float32_samples(), session=-2)
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                network.run()
                network.check()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=side):
                    network.run()
            for _ in range(3):
                for output in network.outputs:
                    output.memory.fill_(0xA5)  # type: ignore[attr-defined]
                graph.replay()
                network.check()
