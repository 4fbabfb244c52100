# SPDX-License-Identifier: Apache-2.0
"""What the ops that decode and run must do on CUDA, by a stand-in for ONNX Runtime, on any device
that a subclass has: a GPU, or the PTX machine.

What is tested is what the library does: which weight the provider's operator is given, where it
lies, by which attributes, on which stream, and that its memory is given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_runtime import Node, Operator, RefusedError, Run, Tensor, fake_runtime
from tests.op_checks import CUDA, TYPES, Array, DeviceBytes
from tests.product_samples import ProductSample, packed_matmul_sample, product_samples


class Device:
    """The memory of a device by address, and what runs on it.

    Attributes:
        library: whose ops are run; None for the installed one.
        stream: that runs come on.
    """

    library: Path | None = None
    stream: int = 0

    def __init__(self) -> None:
        self.arrays: dict[int, DeviceBytes] = {}
        self.scratch: list[int] = []
        self.operators: list[Operator] = []

    def memory(self, num_bytes: int) -> DeviceBytes:
        raise NotImplementedError

    def copy_of(self, array: Array) -> DeviceBytes:
        raise NotImplementedError

    def multiply(self, operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
        """Run an operator of the provider."""
        raise NotImplementedError

    def put(self, array: DeviceBytes) -> int:
        self.arrays[array.address] = array
        return array.address

    def take_scratch(self, num_bytes: int) -> int:
        self.scratch.append(self.put(self.memory(num_bytes)))
        return self.scratch[-1]

    def free(self, address: int) -> None:
        self.scratch.remove(address)
        del self.arrays[address]

    def run_of(self, tensors: list[Tensor | None], allocate: Any) -> Run:
        return Run(
            tensors,
            allocate,
            self.stream,
            scratch=self.take_scratch,
            free=self.free,
            invoke=self.invoke,
        )

    def invoke(self, operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
        self.operators.append(operator)
        self.multiply(operator, inputs, output)


def node_of(sample: ProductSample, device: Device, **more: int) -> tuple[Node, list[Tensor | None]]:
    """The node of a sample, and its inputs on the device."""
    tensors: list[Tensor | None] = []
    for name, array in sample.inputs.items():
        if array is None:
            tensors.append(None)
            continue
        address = array.ctypes.data if name == "blob" else device.put(device.copy_of(array))
        tensors.append(Tensor(TYPES[array.dtype.name], array.shape, address))
    constants = {n: t for n, t in enumerate(tensors) if n > 0 and t is not None}
    types = {n: t.element_type for n, t in enumerate(tensors) if t is not None}
    attributes = sample.attributes | more
    return Node(attributes, constants, types, device.take_scratch, device.free), tensors


def run(device: Device, sample: ProductSample, runs: int = 2) -> Array:
    """Run an op on the device's stream."""
    node, tensors = node_of(sample, device)
    outputs: list[DeviceBytes] = []
    kind = sample.expected.dtype

    def allocate(shape: tuple[int, ...]) -> int:
        outputs.append(device.memory(int(np.prod(shape)) * kind.itemsize))
        return device.put(outputs[-1])

    with fake_runtime(device.library) as runtime, runtime.kernel(sample.op, CUDA, node) as kernel:
        for _ in range(runs):
            done = kernel(device.run_of(tensors, allocate))
            assert len(device.scratch) == 1  # kept for the next run
        found = outputs[-1].numpy(kind, done.shape)
    assert {op.name for op in device.operators} == {sample.operator}
    assert device.scratch == []
    return found


def float32_samples() -> list[ProductSample]:
    return [s for s in product_samples() if s.expected.dtype == np.float32]


class Network:
    """The ops of a session, which decode ahead, one run after the other.

    Args:
        samples: the ops.
        more: attributes of all of them, `session` among them.
    """

    def __init__(
        self,
        device: Device,
        runtime: Any,
        stack: ExitStack,
        samples: Sequence[ProductSample],
        **more: int,
    ) -> None:
        self.device = device
        self.samples = samples
        self.outputs: list[DeviceBytes] = []
        self._ops = []
        for place, sample in enumerate(self.samples):
            node, tensors = node_of(sample, device, place=place, **more)
            kernel = stack.enter_context(runtime.kernel(sample.op, CUDA, node))
            self._ops.append((kernel, tensors))
        self.renew()

    def renew(self) -> None:
        """Give every op new memory for its output."""
        self.outputs = [self.device.memory(s.expected.nbytes) for s in self.samples]
        for output in self.outputs:
            self.device.put(output)

    def run(self, order: list[int] | None = None) -> None:
        """Run the ops on the device's stream."""
        for number in order if order is not None else range(len(self._ops)):
            kernel, tensors = self._ops[number]
            address = self.outputs[number].address
            give = lambda _, address=address: address  # noqa: E731
            kernel(self.device.run_of(tensors, give))

    def check(self) -> None:
        for sample, output in zip(self.samples, self.outputs, strict=True):
            found = output.numpy(np.float32, sample.expected.shape)
            np.testing.assert_allclose(found, sample.expected, rtol=2e-2, atol=2e-2)


class ProductChecks:
    """Tests of the ops on what `device` makes."""

    def device(self) -> Device:
        raise NotImplementedError

    @pytest.mark.parametrize("sample", list(product_samples()), ids=lambda s: s.name)
    def test_products(self, sample: ProductSample) -> None:
        found = run(self.device(), sample)
        assert found.shape == sample.expected.shape
        np.testing.assert_allclose(
            found.astype(np.float32), sample.expected.astype(np.float32), rtol=2e-2, atol=2e-2
        )

    @pytest.mark.parametrize("lookup", [False, True])
    def test_many_rows_are_multiplied_by_the_providers_product(self, lookup: bool) -> None:
        sample = packed_matmul_sample(300, lookup)
        found = run(self.device(), sample)
        np.testing.assert_allclose(found, sample.expected, rtol=2e-2, atol=2e-2)

    @pytest.mark.parametrize(
        ("number", "ahead_bytes"), [(-1, 0), (-3, 1), (-4, 20_000), (-5, 1 << 30)]
    )
    def test_weights_are_decoded_ahead(self, number: int, ahead_bytes: int) -> None:
        """One by one, in groups, all at once."""
        device = self.device()
        with fake_runtime(device.library) as runtime, ExitStack() as stack:
            more = {"session": number, "ahead_bytes": ahead_bytes}
            network = Network(device, runtime, stack, float32_samples(), **more)
            for _ in range(3):
                network.run()
                assert len(device.scratch) == (1 if ahead_bytes == 1 << 30 else 2)
                network.check()
                network.renew()
            last = len(network.samples) - 1
            for _ in range(4):  # another order is learnt, and a third gives up
                network.run([last, *range(last)])
                network.check()
                network.renew()
            network.run([*range(last, -1, -1)])
            network.check()

    def test_too_little_memory_is_an_error(self) -> None:
        def refuse(num_bytes: int) -> int:
            raise MemoryError

        sample, device = next(product_samples()), self.device()
        node, tensors = node_of(sample, device)
        node.allocate = refuse
        out = device.memory(sample.expected.nbytes)
        with (
            fake_runtime(device.library) as runtime,
            runtime.kernel(sample.op, CUDA, node) as kernel,
            pytest.raises(RefusedError, match="not enough memory"),
        ):
            kernel(device.run_of(tensors, lambda _: device.put(out)))
