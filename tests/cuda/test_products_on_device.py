# SPDX-License-Identifier: Apache-2.0
"""The ops that decode and run on a GPU, by a stand-in for ONNX Runtime whose products are torch's.

What is tested is what the library does: which weight the provider's operator is given, where it
lies, by which attributes, on which stream, and that its memory is given back.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from tests.cuda.device_arrays import DeviceArray, needs_gpu
from tests.fake_runtime import Node, Operator, RefusedError, Run, Tensor, fake_runtime
from tests.product_samples import ProductSample, packed_matmul_sample, product_samples

pytestmark = needs_gpu
CUDA = "CUDAExecutionProvider"
TYPES = {"float32": 1, "int8": 3, "uint16": 4, "float16": 10, "uint32": 12}


class Device:
    """The memory of a device by address, and what runs on it."""

    def __init__(self) -> None:
        self.arrays: dict[int, DeviceArray] = {}
        self.scratch: list[int] = []
        self.operators: list[Operator] = []

    def put(self, array: DeviceArray) -> int:
        self.arrays[array.address] = array
        return array.address

    def take_scratch(self, num_bytes: int) -> int:
        self.scratch.append(self.put(DeviceArray(num_bytes)))
        return self.scratch[-1]

    def free(self, address: int) -> None:
        self.scratch.remove(address)
        del self.arrays[address]

    def run_of(self, tensors: list[Tensor | None], allocate: Any, stream: int) -> Run:
        return Run(
            tensors, allocate, stream, scratch=self.take_scratch, free=self.free, invoke=self.invoke
        )

    def tensor(self, of: Tensor) -> Any:
        import torch

        kind = {1: torch.float32, 10: torch.float16}[of.element_type]
        return self.arrays[of.address].memory.view(kind).view(of.shape)

    def invoke(self, operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
        import torch

        self.operators.append(operator)
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
        self.arrays[output.address].memory.view(made.dtype).copy_(made.reshape(-1))


def node_of(sample: ProductSample, device: Device, **more: int) -> tuple[Node, list[Tensor | None]]:
    """The node of a sample, and its inputs on the device."""
    tensors: list[Tensor | None] = []
    for name, array in sample.inputs.items():
        if array is None:
            tensors.append(None)
            continue
        address = array.ctypes.data if name == "blob" else device.put(DeviceArray.of(array))
        tensors.append(Tensor(TYPES[array.dtype.name], array.shape, address))
    constants = {n: t for n, t in enumerate(tensors) if n > 0 and t is not None}
    types = {n: t.element_type for n, t in enumerate(tensors) if t is not None}
    return Node(
        sample.attributes | more, constants, types, device.take_scratch, device.free
    ), tensors


def run(sample: ProductSample, runs: int = 2) -> np.ndarray:
    """Run an op on the current stream of torch."""
    import torch

    device = Device()
    node, tensors = node_of(sample, device)
    outputs: list[DeviceArray] = []
    kind = sample.expected.dtype

    def allocate(shape: tuple[int, ...]) -> int:
        outputs.append(DeviceArray(int(np.prod(shape)) * kind.itemsize))
        return device.put(outputs[-1])

    stream = torch.cuda.current_stream().cuda_stream
    with fake_runtime() as runtime, runtime.kernel(sample.op, CUDA, node) as kernel:
        for _ in range(runs):
            done = kernel(device.run_of(tensors, allocate, stream))
            assert len(device.scratch) == 1  # kept for the next run
        found = outputs[-1].numpy(kind, done.shape)
    assert {op.name for op in device.operators} == {sample.operator}
    return found


@pytest.mark.parametrize("sample", list(product_samples()), ids=lambda s: s.name)
def test_products(sample: ProductSample) -> None:
    found = run(sample)
    assert found.shape == sample.expected.shape
    np.testing.assert_allclose(
        found.astype(np.float32), sample.expected.astype(np.float32), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("lookup", [False, True])
def test_many_rows_are_multiplied_by_the_providers_product(lookup: bool) -> None:
    sample = packed_matmul_sample(300, lookup)
    np.testing.assert_allclose(run(sample), sample.expected, rtol=2e-2, atol=2e-2)


def test_products_on_a_stream_of_their_own() -> None:
    import torch

    sample = next(product_samples())
    with torch.cuda.stream(torch.cuda.Stream()):
        found = run(sample, runs=20)
    np.testing.assert_allclose(found, sample.expected, rtol=2e-2, atol=2e-2)


class Network:
    """The ops of a session, which decode one ahead, one run after the other."""

    def __init__(self, runtime: Any, stack: ExitStack, session: int) -> None:
        self.device = Device()
        self.samples = [s for s in product_samples() if s.expected.dtype == np.float32]
        self.outputs = [DeviceArray(s.expected.nbytes) for s in self.samples]
        self._ops = []
        for place, sample in enumerate(self.samples):
            self.device.put(self.outputs[place])
            node, tensors = node_of(sample, self.device, session=session, place=place)
            kernel = stack.enter_context(runtime.kernel(sample.op, CUDA, node))
            self._ops.append((kernel, tensors, self.outputs[place].address))

    def run(self, order: list[int] | None = None) -> None:
        """Run the ops on the current stream of torch."""
        import torch

        stream = torch.cuda.current_stream().cuda_stream
        for number in order if order is not None else range(len(self._ops)):
            kernel, tensors, address = self._ops[number]
            give = lambda _, address=address: address  # noqa: E731
            kernel(self.device.run_of(tensors, give, stream))

    def check(self) -> None:
        for sample, output in zip(self.samples, self.outputs, strict=True):
            found = output.numpy(np.float32, sample.expected.shape)
            np.testing.assert_allclose(found, sample.expected, rtol=2e-2, atol=2e-2)
            output.memory.fill_(0xA5)


def test_weights_are_decoded_one_ahead() -> None:
    import torch

    with fake_runtime() as runtime, ExitStack() as stack, torch.cuda.stream(torch.cuda.Stream()):
        network = Network(runtime, stack, session=-1)
        for _ in range(10):
            network.run()
            assert len(network.device.scratch) == 2
        network.check()
        last = len(network.samples) - 1
        for _ in range(4):  # another order is learnt, and a third gives up
            network.run([last, *range(last)])
            network.check()
        network.run([*range(last, -1, -1)])
        network.check()


def test_a_capture_takes_the_second_stream_along() -> None:
    import torch

    with fake_runtime() as runtime, ExitStack() as stack:
        network = Network(runtime, stack, session=-2)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            network.run()
            network.check()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                network.run()
        for _ in range(3):
            graph.replay()
            network.check()


def test_too_little_memory_is_an_error() -> None:
    import torch

    def refuse(num_bytes: int) -> int:
        raise MemoryError

    sample, device = next(product_samples()), Device()
    node, tensors = node_of(sample, device)
    node.allocate = refuse
    out = DeviceArray(sample.expected.nbytes)
    give = lambda _: device.put(out)  # noqa: E731
    stream = torch.cuda.current_stream().cuda_stream
    with (
        fake_runtime() as runtime,
        runtime.kernel(sample.op, CUDA, node) as kernel,
        pytest.raises(RefusedError, match="not enough memory"),
    ):
        kernel(device.run_of(tensors, give, stream))
