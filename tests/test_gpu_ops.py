# SPDX-License-Identifier: Apache-2.0
"""The ops that the library registers for CUDA, by a stand-in for ONNX Runtime.

Where there is no GPU they are refused with a reason; the stand-in is tested with the CPU's ops of
the same names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime import WideReader, encode_wide
from runtime.gpu import examine
from runtime.graph_values import LIBRARY_OPS
from tests.fake_runtime import (
    FakeRuntime,
    Node,
    Operator,
    RefusedError,
    Run,
    Tensor,
    fake_runtime,
)
from tests.product_samples import (
    ProductSample,
    packed_matmul_sample,
    product_samples,
    run_product,
)
from tests.wide_samples import laplace

CUDA = "CUDAExecutionProvider"
UINT16, FLOAT = 4, 1
needs_cuda_code = pytest.mark.skipif(
    not examine().built, reason="the library was built without CUDA"
)


def on_host(array: np.ndarray, element_type: int) -> Tensor:
    return Tensor(element_type, array.shape, array.ctypes.data)


def dequantise_node(blob: np.ndarray, shape: list[int]) -> Node:
    return Node({"tensor": 0, "shape": shape, "axis": 1}, {0: on_host(blob, UINT16)})


def run_on_host(runtime: FakeRuntime, symbols: np.ndarray, scales: np.ndarray) -> Any:
    blob = np.array(encode_wide([symbols]))
    out = np.empty(symbols.shape[1:], np.float32)
    inputs = [on_host(blob, UINT16), on_host(scales, FLOAT)]
    with runtime.kernel("DecodeDequantize", "", dequantise_node(blob, list(out.shape))) as kernel:
        done = kernel(Run(inputs, lambda _: out.ctypes.data))
    assert done.shape == out.shape
    return out


def test_the_stand_in_runs_the_ops_of_the_cpu() -> None:
    symbols = laplace((1, 40, 24), 5)
    scales = np.linspace(0.01, 0.1, 24, dtype=np.float32)
    with fake_runtime() as runtime:
        found = run_on_host(runtime, symbols, scales)
        with pytest.raises(RefusedError, match="one value per index"):
            run_on_host(runtime, symbols, scales[1:].copy())
    np.testing.assert_array_equal(found, symbols[0].astype(np.float32) * scales)


@pytest.mark.parametrize("sample", list(product_samples()), ids=lambda s: s.name)
def test_the_stand_in_runs_the_products_of_the_cpu(sample: ProductSample) -> None:
    """As `tests/cuda` does with those of a GPU."""
    types = {"float32": FLOAT, "int8": 3, "uint16": UINT16, "uint32": 12, "float16": 10}
    tensors = [
        None if array is None else on_host(array, types[array.dtype.name])
        for array in sample.inputs.values()
    ]
    node = Node(
        sample.attributes,
        {1: tensors[1]},
        {n: tensor.element_type for n, tensor in enumerate(tensors) if tensor is not None},
    )
    out = np.empty_like(sample.expected)
    scratch: dict[int, np.ndarray] = {}

    def take(num_bytes: int) -> int:
        made = np.empty(num_bytes, np.uint8)
        scratch[made.ctypes.data] = made
        return made.ctypes.data

    def invoke(operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
        assert (operator.name, output.address) == (sample.operator, out.ctypes.data)
        left = sample.op.startswith("DecodeLeft")
        decoded = inputs[0 if left else 1]
        weight = scratch[decoded.address].view(out.dtype).reshape(decoded.shape)
        x = sample.inputs["x"]
        assert inputs[1 if left else 0].address == x.ctypes.data
        attributes: dict[str, Any] = {}
        made = run_product(
            f"{'Left' * left}{operator.name}",
            x.astype(np.float32),
            weight.astype(np.float32),
            attributes,
        )
        assert attributes.items() <= operator.attributes.items()
        if len(inputs) > 2:
            bias = sample.inputs["bias"].astype(np.float32)
            made = made + bias.reshape((-1, *[1] * (made.ndim - 2)))
        out[...] = made

    run = Run(tensors, lambda _: out.ctypes.data, scratch=take, free=scratch.pop, invoke=invoke)
    with fake_runtime() as runtime, runtime.kernel(sample.op, "", node) as kernel:
        done = kernel(run)
    assert done.shape == sample.expected.shape
    assert scratch == {}
    np.testing.assert_array_equal(out, sample.expected)


@pytest.mark.parametrize("lookup", [False, True])
@pytest.mark.parametrize("rows", [5, 96, 97, 300])
def test_many_rows_are_multiplied_by_the_providers_product(rows: int, lookup: bool) -> None:
    """Where it has one for float16, as CUDA has; few are multiplied straight from the weight."""
    sample = packed_matmul_sample(rows, lookup)
    types = {"uint32": 12, "float16": 10}
    tensors = [on_host(array, types[array.dtype.name]) for array in sample.inputs.values()]
    node = Node(sample.attributes, {}, {n: t.element_type for n, t in enumerate(tensors)})
    out = np.full_like(sample.expected, 7)
    scratch: dict[int, np.ndarray] = {}
    invoked: list[Operator] = []

    def take(num_bytes: int) -> int:
        made = np.empty(num_bytes, np.uint8)
        scratch[made.ctypes.data] = made
        return made.ctypes.data

    def invoke(operator: Operator, inputs: list[Tensor], output: Tensor) -> None:
        x, weight = inputs
        assert operator.name == "Gemm" and operator.attributes == {"transB": 1}
        assert (x.address, x.shape) == (tensors[0].address, (rows, 72))
        assert (output.address, output.shape) == (out.ctypes.data, (rows, 37))
        values = scratch[weight.address].view(np.float16).reshape(weight.shape)
        out[...] = sample.inputs["x"].astype(np.float32) @ values.astype(np.float32).T
        invoked.append(operator)

    run = Run(tensors, lambda _: out.ctypes.data, scratch=take, free=scratch.pop, invoke=invoke)
    with fake_runtime() as runtime, runtime.kernel(sample.op, "", node) as kernel:
        done = kernel(run)
    assert done.shape == sample.expected.shape
    assert len(invoked) == (rows > 96)
    assert scratch == {}
    np.testing.assert_allclose(out, sample.expected, rtol=2e-3, atol=2e-3)


@needs_cuda_code
def test_every_op_has_a_kernel_for_cuda() -> None:
    with fake_runtime() as runtime:
        assert {name for name, provider in runtime.ops if provider == CUDA} >= LIBRARY_OPS


DECODERS = ["DecodeWide", "DecodeTensor", "DecodeDequantize", "DecodeLookup"]
PRODUCTS = [
    f"Decode{op}{kind}"
    for op in ("MatMul", "LeftMatMul", "Gemm", "Conv")
    for kind in ("", "Lookup")
]


@needs_cuda_code
@pytest.mark.skipif(examine().num_devices > 0, reason="there is a GPU")
@pytest.mark.parametrize("op", [*DECODERS, *PRODUCTS])
def test_without_a_gpu_the_kernels_are_refused_with_a_reason(op: str) -> None:
    blob = np.array(encode_wide([laplace((1, 40, 24), 5)]))
    node = dequantise_node(blob, [40, 24])
    if op in PRODUCTS:
        node = Node(node.attributes, {1: node.constants[0]}, {0: FLOAT, 2: FLOAT})
    with (
        fake_runtime() as runtime,
        pytest.raises(RefusedError, match=r"driver|device"),
        runtime.kernel(op, CUDA, node),
    ):
        pass


@needs_cuda_code
def test_a_blob_that_is_no_constant_is_refused() -> None:
    with (
        fake_runtime() as runtime,
        pytest.raises(RefusedError, match="must be a constant initializer"),
        runtime.kernel("DecodeTensor", CUDA, Node({"tensor": 0, "shape": [4]}, {})),
    ):
        pass


def test_a_session_runs_after_the_stand_in() -> None:
    import onnxruntime

    from tests.decode_models import CPU, two_matmuls, x_of

    compressed, _ = two_matmuls()
    with fake_runtime():
        pass
    options = onnxruntime.SessionOptions()
    from runtime import register

    register(options)
    session = onnxruntime.InferenceSession(compressed.SerializeToString(), options, CPU)
    assert session.run(None, {"x": x_of()})[0].shape == (3, 8)
    assert WideReader(encode_wide([laplace((1, 2, 2), 1)])).info.num_tensors == 1
