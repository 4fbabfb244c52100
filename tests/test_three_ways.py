# SPDX-License-Identifier: Apache-2.0
"""One file gives the same outputs in load mode, in stream mode and on stock ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtime
import toolkit


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("bits", [6, 12])
def test_a_weight_behind_a_transpose(tmp_path: Path, opset: int, bits: int) -> None:
    """ONNX Runtime moves DequantizeLinear behind the Transpose; negative weights must survive."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((160, 128)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 160])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, tmp_path / "plain.onnx")
    report = toolkit.compress(
        tmp_path / "plain.onnx", tmp_path / "small.onnx", bits=bits, portable="always"
    )
    assert report.shrunk or bits == 12
    path = str(tmp_path / "small.onnx")
    if not Path(path).exists():
        pytest.skip("the function bodies are larger than what 12 bits save here")
    x = rng.standard_normal((5, 128)).astype(np.float32)
    providers = ["CPUExecutionProvider"]
    load = runtime.InferenceSession(path, providers=providers).run(None, {"x": x})[0]
    stream = runtime.InferenceSession(path, providers=providers, mode="stream")
    stock = onnxruntime.InferenceSession(path, providers=providers)
    np.testing.assert_allclose(stream.run(None, {"x": x})[0], load, rtol=0, atol=1e-4)
    np.testing.assert_allclose(stock.run(None, {"x": x})[0], load, rtol=0, atol=1e-4)
