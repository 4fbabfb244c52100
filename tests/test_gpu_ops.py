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
from tests.fake_runtime import FakeRuntime, Node, RefusedError, Run, Tensor, fake_runtime
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


@needs_cuda_code
def test_every_op_has_a_kernel_for_cuda() -> None:
    with fake_runtime() as runtime:
        assert {name for name, provider in runtime.ops if provider == CUDA} >= LIBRARY_OPS


DECODERS = ["DecodeWide", "DecodeTensor", "DecodeDequantize", "DecodeLookup"]
PRODUCTS = [f"Decode{op}{kind}" for op in ("MatMul", "Gemm", "Conv") for kind in ("", "Lookup")]


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
