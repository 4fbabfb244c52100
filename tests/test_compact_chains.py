# SPDX-License-Identifier: Apache-2.0
"""Fewer decode nodes, the same weights in every way to run a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import passes
import runtime
from passes.schemes import Lossless, Parameters, Prune, Trellis, Uniform

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[n,96] x) => (float[n,8] y) {
    a = Gemm <transB = 1> (x, w1, b1)
    b = Gemm <transB = 1> (a, w2, b2)
    y = Gemm <transB = 1> (b, w3, b3)
}"""
SHAPES = {"w1": (96, 96), "b1": (96,), "w2": (96, 96), "b2": (96,), "w3": (8, 96), "b3": (8,)}


def model_and_plan(kind: str) -> tuple[ir.Model, dict[str, Parameters]]:
    rng, proto = np.random.default_rng(0), onnx.parser.parse_model(TEXT)
    plan: dict[str, Parameters] = {}
    for name, shape in SHAPES.items():
        scheme: object = Uniform(step=0.25)
        if kind == "wide symbols" and name == "w1":
            scheme = Uniform(step=0.002)
        if kind == "rows" and name != "w3" and len(shape) == 2:
            scheme = Uniform(bits=4, granularity="row")
        if kind == "zero points" and len(shape) == 2:
            scheme = Uniform(bits=4, symmetric=False)
        if kind == "trellis" and name == "w1":
            scheme = Trellis(bits=4)
        if kind == "other chains" and name == "w1":
            scheme = Prune(fraction=0.1, inner=Lossless())
        weight = rng.standard_normal(shape).astype(np.float32)
        plan[name] = scheme.fit(weight)  # type: ignore[attr-defined]
        tensor = onnx.numpy_helper.from_array(plan[name].decode(), name)
        proto.graph.initializer.append(tensor)
    return ir.from_proto(proto), plan


@pytest.mark.parametrize(
    "kind", ["plain", "wide symbols", "rows", "zero points", "trellis", "other chains"]
)
def test_weights_stay_the_same(kind: str, tmp_path: Path) -> None:
    model, plan = model_and_plan(kind)
    passes.EncodeWeights(plan)(model)
    before = ir.to_proto(model).ByteSize()
    passes.CompactChains()(model)
    passes.CleanUp()(model)
    passes.EmbedFunctions("never")(model)
    small = ir.to_proto(model).ByteSize()
    assert small < before - 40 or kind in ("trellis", "zero points")
    passes.EmbedFunctions("always")(model)
    path = tmp_path / "small.onnx"
    passes.write_model(model, path)
    proto = onnx.load(path)
    made = {name for node in proto.graph.node for name in node.output}
    names = [name for name in SHAPES if name in made]
    assert "w1" in names and "b1" in names
    x = np.random.default_rng(1).standard_normal((3, 96)).astype(np.float32)
    providers = ["CPUExecutionProvider"]
    load = runtime.InferenceSession(str(path), providers=providers)
    stream = runtime.InferenceSession(str(path), providers=providers, mode="stream")
    stock = onnxruntime.InferenceSession(str(path), providers=providers)
    results = [session.run(None, {"x": x})[0] for session in (load, stream, stock)]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-3)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    runtime.register(options)
    data = proto.SerializeToString()
    for session in (
        onnxruntime.InferenceSession(data, providers=providers),
        onnxruntime.InferenceSession(data, options, providers=providers),
    ):
        for name, value in zip(names, session.run(names, {"x": x}), strict=True):
            np.testing.assert_array_equal(value, plan[name].decode(), err_msg=f"{kind} {name}")


def test_vectors_of_one_scale_are_divided() -> None:
    model, plan = model_and_plan("plain")
    del plan["w3"]
    passes.EncodeWeights({name: plan[name] for name in ("w1", "w2", "b1", "b2")})(model)
    assert passes.CompactChains()(model).modified
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Split") == 1 and "TakeRange" not in kinds
    assert kinds.count("DecodeDequantize") == 2 and "DecodeWide" not in kinds


def test_large_segments_stay() -> None:
    model, plan = model_and_plan("plain")
    passes.EncodeWeights(plan)(model)
    passes.CompactChains(most_symbols=1000)(model)
    assert "DecodeWide" in [node.op_type for node in model.graph]
