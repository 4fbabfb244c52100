# SPDX-License-Identifier: Apache-2.0
"""A small network with every kind of product, compressed and plain."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

import runtime
from tests.decode_models import model, node, std, symbols, take

FLOAT = TensorProto.FLOAT


def network() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A compressed model with every kind of product, and the plain model."""
    shapes = {"k": (8, 3, 3, 3), "g": (10, 72), "m": (10, 6)}
    tensors = [
        symbols((s[0], int(np.prod(s[1:-1])), s[-1]), n, 5.0) for n, s in enumerate(shapes.values())
    ]
    blob = runtime.encode_wide(tensors)
    scales = np.linspace(0.01, 0.03, 10, dtype=np.float32)
    codebook = np.sort(np.random.default_rng(0).normal(size=256)).astype(np.float32)
    bias = np.arange(10, dtype=np.float32)
    nodes = [node("DecodeWide", ["blob"], ["symbols"])]
    nodes += [
        take(blob, n, "symbols", f"{name}_q", shape)
        for n, (name, shape) in enumerate(shapes.items())
    ]
    nodes += [
        std("DequantizeLinear", ["k_q", "step"], ["k"]),
        std("DequantizeLinear", ["g_q", "scales"], ["g"], axis=0),
        std("Cast", ["m_q"], ["m_c"], to=TensorProto.INT32),
        std("Add", ["m_c", "half"], ["m_i"]),
        std("Gather", ["codebook", "m_i"], ["m"]),
    ]
    body = [
        std("Conv", ["x", "k"], ["c"], strides=[2, 2]),
        std("Flatten", ["c"], ["f"]),
        std("Gemm", ["f", "g", "bias"], ["h"], transB=1),
        std("Relu", ["h"], ["r"]),
        std("MatMul", ["r", "m"], ["y"]),
    ]
    constants = {"blob": blob, "step": np.float32(0.02), "scales": scales, "codebook": codebook}
    constants |= {"half": np.array(128, np.int32), "bias": bias}
    values = {
        "k": tensors[0].reshape(shapes["k"]).astype(np.float32) * np.float32(0.02),
        "g": tensors[1].reshape(shapes["g"]).astype(np.float32) * scales[:, None],
        "m": codebook[tensors[2].reshape(shapes["m"]).astype(int) + 128],
        "bias": bias,
    }
    inputs = [("x", FLOAT, ["batch", 3, 7, 7])]
    return model([*nodes, *body], constants, ["y"], inputs), model(body, values, ["y"], inputs)
