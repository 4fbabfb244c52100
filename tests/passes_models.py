# SPDX-License-Identifier: Apache-2.0
"""Tiny models as ONNX text, and how to run them, for the tests of the passes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

import passes

NETWORK = """
< ir_version: 8, opset_import: ["" : {opset}] >
net ({kind}[N,8,10,10] x) => ({kind}[N,48] y) {{
  c = Conv <pads = [1,1,1,1]> (x, conv_w, conv_b)
  r = Relu (c)
  p = GlobalAveragePool (r)
  f = Flatten (p)
  g = Gemm <transB = 1> (f, gemm_w, gemm_b)
  y = MatMul (g, matmul_w)
}}
"""
NETWORK_SHAPES = {
    "conv_w": (32, 8, 3, 3),
    "conv_b": (32,),
    "gemm_w": (96, 32),
    "gemm_b": (96,),
    "matmul_w": (96, 48),
}


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Reproducible normal values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def proto_of(text: str, tensors: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """The model of ``text`` with ``tensors`` as initializers."""
    proto = onnx.parser.parse_model(text)
    for name, array in (tensors or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def network(opset: int = 17, dtype: str = "float32") -> onnx.ModelProto:
    """A convolution, a Gemm and a MatMul with random weights."""
    kind = {"float32": "float", "float16": "float16", "bfloat16": "bfloat16"}[dtype]
    tensors = {}
    for seed, (name, shape) in enumerate(NETWORK_SHAPES.items()):
        tensors[name] = normal(*shape, seed=seed).astype(_dtype(dtype))
    return proto_of(NETWORK.format(opset=opset, kind=kind), tensors)


def _dtype(name: str) -> np.dtype:
    return ir.DataType.BFLOAT16.numpy() if name == "bfloat16" else np.dtype(name)


def model_of(proto: onnx.ModelProto) -> ir.Model:
    """``proto`` as read from a file: weights lifted to the main graph."""
    model = ir.serde.deserialize_model(proto)
    passes.LiftWeights()(model)
    return model


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    """``path`` after writing ``proto`` to it."""
    path.write_bytes(proto.SerializeToString())
    return path


def run(
    model: ir.Model | onnx.ModelProto,
    inputs: Mapping[str, np.ndarray],
    extra: list[str] | None = None,
) -> dict[str, np.ndarray]:
    """Outputs, and the values named in ``extra``, from stock ONNX Runtime on the CPU."""
    proto = model if isinstance(model, onnx.ModelProto) else ir.serde.serialize_model(model)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in extra or [] if n not in known)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def portable(model: ir.Model) -> ir.Model:
    """``model`` with function bodies, so that stock ONNX Runtime runs it."""
    passes.EmbedFunctions("always")(model)
    return model
