# SPDX-License-Identifier: Apache-2.0
"""The ops of the CUDA provider on the PTX machine, by a stand-in for ONNX Runtime: the kernels are
PTX, the code around them is the library's, and the provider's products are NumPy's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import pytest

from runtime import encode_wide
from tests.fake_runtime import Operator, Tensor, fake_runtime
from tests.op_checks import Array, OpChecks
from tests.product_checks import Device, Network, ProductChecks
from tests.product_samples import ProductSample, run_product
from tests.ptx.cuda_runtime import PtxDevice
from tests.wide_samples import laplace

FLOATS = {1: np.float32, 10: np.float16}


class PtxBytes:
    """Memory of the machine."""

    def __init__(self, machine: PtxDevice, num_bytes: int) -> None:
        self._machine = machine
        self.address = machine.allocate(num_bytes)
        self.nbytes = num_bytes

    def numpy(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
        return self._machine.download(self.address, dtype, shape)


@pytest.fixture
def machine(ptx_device: PtxDevice) -> Iterator[PtxDevice]:
    with ptx_device.in_use() as device:
        yield device


class OnMachine:
    """What checks ask of the machine's memory."""

    machine: PtxDevice

    def memory(self, num_bytes: int) -> PtxBytes:
        return PtxBytes(self.machine, num_bytes)

    def copy_of(self, array: Array) -> PtxBytes:
        made = self.memory(array.nbytes)
        self.machine.memory.put(made.address, np.ascontiguousarray(array))
        return made


class TestOps(OnMachine, OpChecks):
    @pytest.fixture(autouse=True)
    def use(self, machine: PtxDevice) -> None:
        self.machine, self.library = machine, machine.path


class Ptx(OnMachine, Device):
    stream = 5

    def __init__(self, machine: PtxDevice) -> None:
        super().__init__()
        self.machine, self.library = machine, machine.path

    def multiply(self, operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
        x, weight, *bias = (
            self.machine.download(t.address, FLOATS[t.element_type], t.shape).astype(np.float32)
            for t in inputs
        )
        if operator.name == "Conv":
            made = run_product("Conv", x, weight, wanted := {})
            assert wanted.items() <= operator.attributes.items()
        else:
            turned = x.T if operator.attributes.get("transA") else x
            made = turned @ (weight.T if operator.attributes.get("transB") else weight)
        if bias:
            made = made + bias[0].reshape(-1, *[1] * (made.ndim - 2))
        values = np.ascontiguousarray(made.astype(FLOATS[operator.element_type]))
        self.machine.memory.put(output.address, values)


class TestProducts(ProductChecks):
    @pytest.fixture(autouse=True)
    def use(self, machine: PtxDevice) -> None:
        self.machine = machine

    def device(self) -> Device:
        return Ptx(self.machine)


def test_a_group_is_decoded_by_one_kernel(machine: PtxDevice) -> None:
    """Weights of one blob that are used one after the other."""
    count, random = 6, np.random.default_rng(2)
    coded = [laplace((1, 48, 48), 4, n) for n in range(count)]
    blob = np.array(encode_wide(coded, steps=96, classes=False, contexts="off"))
    samples = []
    for tensor, symbols in enumerate(coded):
        scales = random.uniform(0.01, 0.05, 48).astype(np.float32)
        x = random.normal(size=(3, 48)).astype(np.float32)
        attributes = {"tensor": tensor, "shape": [48, 48], "axis": 1}
        weight = symbols[0].astype(np.float32) * scales
        inputs = {"x": x, "blob": blob, "scale": scales, "zero_point": None}
        name = f"weight {tensor}"
        samples.append(
            ProductSample(name, "DecodeMatMul", "MatMul", inputs, attributes, x @ weight)
        )
    found = {}
    for number, ahead_bytes in ((-11, 1), (-12, 2 * 48 * 48 * 4), (-13, 1 << 30)):
        device = Ptx(machine)
        with fake_runtime(device.library) as runtime, ExitStack() as stack:
            more = {"session": number, "ahead_bytes": ahead_bytes}
            network = Network(device, runtime, stack, samples, **more)
            machine.launches.clear()
            network.run()
            network.check()
            found[ahead_bytes] = len([n for n, _ in machine.launches if "decode_wide" in n])
    assert list(found.values()) == [6, 3, 1]
