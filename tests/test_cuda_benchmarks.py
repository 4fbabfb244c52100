# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the GPU on a machine without one, and the models that they are made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto

import runtime
import toolkit
from benchmarks import cuda_decode, cuda_packed, cuda_session
from benchmarks.cuda_models import Block, make_models, repeat, to_float16
from runtime import gpu
from tests.decode_models import CPU, model, std

WIDTH = 8


def layers_model() -> tuple[bytes, list[np.ndarray], Block]:
    """Two layers between a first and a last node, their weights, and the block."""
    random = np.random.default_rng(0)
    weights = [random.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 4 for _ in range(2)]
    nodes = [
        std("Identity", ["x"], ["begin"]),
        std("MatMul", ["begin", "layer.0.w"], ["layer.0.y"]),
        std("Add", ["layer.0.y", "begin"], ["layer.0.z"]),
        std("MatMul", ["layer.0.z", "layer.1.w"], ["layer.1.y"]),
        std("Tanh", ["layer.1.y"], ["y"]),
    ]
    for node in nodes:
        node.name = node.output[0]
    constants = {f"layer.{n}.w": weight for n, weight in enumerate(weights)}
    proto = model(nodes, constants, ["y"], [("x", TensorProto.FLOAT, ["batch", WIDTH])])
    return proto.SerializeToString(), weights, Block("layer.", "begin", "layer.1.y")


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_layers_follow_one_another(copies: int) -> None:
    content, weights, block = layers_model()
    proto = onnx.load_model_from_string(content)
    repeat(proto, block, copies)
    assert len({t.name for t in proto.graph.initializer}) == 2 * copies
    x = np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)
    value = x
    for copy in range(copies):
        first, second = (weight * np.float32(1 + copy / 1024) for weight in weights)
        value = (value @ first + value) @ second
    for made, kind, near in ((proto, np.float32, 1e-5), (to_float16(proto), np.float16, 1e-2)):
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=CPU)
        found = session.run(None, {"x": x.astype(kind)})[0]
        np.testing.assert_allclose(found, np.tanh(value), rtol=near, atol=near)
        assert found.dtype == kind


def test_the_compressed_file_is_enough(tmp_path: Path) -> None:
    """The float16 file is then what it expands to."""
    proto = to_float16(onnx.load_model_from_string(layers_model()[0]))
    compressed, plain = tmp_path / "minilm-x1.compressed.onnx", tmp_path / "minilm-x1.float16.onnx"
    onnx.save(proto, tmp_path / "source.onnx")
    toolkit.compress(tmp_path / "source.onnx", compressed, bits=4, for_gpu=True)
    assert make_models("minilm", tmp_path) == (plain, compressed)
    x = np.ones((3, WIDTH), np.float16)
    plainly = onnxruntime.InferenceSession(plain, providers=CPU)
    packed = runtime.InferenceSession(compressed, providers=CPU)
    np.testing.assert_array_equal(plainly.run(None, {"x": x})[0], packed.run(None, {"x": x})[0])


@pytest.mark.skipif(not gpu.why_not(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("benchmark", "line"),
    [
        (cuda_decode, "No GPU: "),
        (cuda_packed, "No GPU: "),
        (cuda_session, "Not measured: "),
    ],
)
def test_without_a_gpu_the_tables_say_so(benchmark: object, line: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(benchmark.main, ["--folder", str(tmp_path)])  # type: ignore[attr-defined]
    assert result.exit_code == 0
    assert result.output.startswith(line)
    assert "not measured" in result.output
    (table,) = tmp_path.glob("*.md")
    assert table.read_text(encoding="utf-8") in result.output
