# SPDX-License-Identifier: Apache-2.0
"""One file gives the same outputs in load mode, in stream mode and on stock ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtime
import toolkit
from toolkit import verify


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
    same_three_ways(path, x)


def same_three_ways(path: str, x: np.ndarray) -> None:
    providers = ["CPUExecutionProvider"]
    load = runtime.InferenceSession(path, providers=providers).run(None, {"x": x})[0]
    stream = runtime.InferenceSession(path, providers=providers, mode="stream")
    stock = onnxruntime.InferenceSession(path, providers=providers)
    np.testing.assert_allclose(stream.run(None, {"x": x})[0], load, rtol=0, atol=1e-4)
    np.testing.assert_allclose(stock.run(None, {"x": x})[0], load, rtol=0, atol=1e-4)


def channels_last(path: Path, opset: int) -> Path:
    """A network with its channels last, as other frameworks' exporters write it: each convolution
    between two Transposes, a scale and an offset for each channel behind."""
    rng = np.random.default_rng(0)
    nodes, arrays, value = [], {}, "x"
    for layer, (outputs, inputs) in enumerate([(512, 8), (8, 512)]):
        arrays[f"w{layer}"] = rng.standard_normal((outputs, inputs, 1, 1)) / inputs**0.5
        arrays[f"s{layer}"] = rng.standard_normal(outputs)
        arrays[f"o{layer}"] = rng.standard_normal(outputs)
        names = [f"{kind}{layer}" for kind in "tcumay"]
        nodes += [
            helper.make_node("Transpose", [value], [names[0]], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", [names[0], f"w{layer}"], [names[1]]),
            helper.make_node("Transpose", [names[1]], [names[2]], perm=[0, 2, 3, 1]),
            helper.make_node("Mul", [names[2], f"s{layer}"], [names[3]]),
            helper.make_node("Add", [f"o{layer}", names[3]], [names[4]]),
            helper.make_node("Elu", [names[4]], [names[5]]),
        ]
        value = names[5]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 4, 8])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", 4, 4, 8])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_a_vector_that_meets_a_transposed_value(tmp_path: Path, opset: int) -> None:
    """ONNX Runtime moves a Transpose behind Mul and Add, transposes their vectors for it, and moves
    DequantizeLinear across that: to uint8, where negative symbols were lost."""
    model = channels_last(tmp_path / "plain.onnx", opset)
    recipe = tmp_path / "recipe.yaml"
    vectors = "[{match: s0, settings: {bits: 6}}, {match: o0, settings: {bits: 6}}]"
    recipe.write_text(f"version: 1\nrules: {vectors}\ndefault: {{bits: 7}}\n")
    toolkit.compress(model, tmp_path / "small.onnx", recipe=recipe, portable="always")
    x = np.random.default_rng(1).standard_normal((3, 4, 4, 8)).astype(np.float32)
    same_three_ways(str(tmp_path / "small.onnx"), x)


def test_other_outputs_on_stock_onnxruntime_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = channels_last(tmp_path / "plain.onnx", 18)
    calm = toolkit.compress(model, tmp_path / "calm.onnx", bits=6, portable="always")
    assert not any("other outputs" in note for note in calm.notes)
    real = verify.run_stock

    def shifted(*arguments: Any) -> Any:
        runs = real(*arguments)
        return [{name: value + 0.5 for name, value in run.items()} for run in runs]

    monkeypatch.setattr(verify, "run_stock", shifted)
    found = toolkit.compress(model, tmp_path / "small.onnx", bits=6, portable="always")
    assert any("stock ONNX Runtime gives other outputs" in note for note in found.notes)
