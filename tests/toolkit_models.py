# SPDX-License-Identifier: Apache-2.0
"""Tiny models for the tests of the toolkit, written in the test folder, never fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mlp(path: Path, seed: int = 0, width: int = 96, scale: float = 0.1) -> Path:
    """x [batch, 64] -> relu(x A + a) B + b -> y [batch, 16], about 31 kB of weights."""
    rng = np.random.default_rng(seed)
    arrays = {
        "A": scale * rng.standard_normal((64, width)),
        "a": 0.1 * rng.standard_normal(width),
        "B": scale * rng.standard_normal((width, 16)),
        "b": 0.1 * rng.standard_normal(16),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h0"]),
        helper.make_node("Add", ["h0", "a"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("MatMul", ["h2", "B"], ["h3"]),
        helper.make_node("Add", ["h3", "b"], ["y"]),
    ]
    return save(
        path,
        nodes,
        arrays,
        [("x", TensorProto.FLOAT, ["batch", 64])],
        [("y", TensorProto.FLOAT, ["batch", 16])],
    )


def embedding(path: Path, rows: int = 300) -> Path:
    """ids [batch, sequence] -> Gather of [rows, 32] -> MatMul [32, 32] -> y."""
    rng = np.random.default_rng(1)
    arrays = {"table": rng.standard_normal((rows, 32)), "W": rng.standard_normal((32, 32))}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "W"], ["y"]),
    ]
    return save(
        path,
        nodes,
        arrays,
        [("ids", TensorProto.INT64, ["batch", "sequence"])],
        [("y", TensorProto.FLOAT, ["batch", "sequence", 32])],
    )


def without_weights(path: Path) -> Path:
    """y = relu(x): nothing to compress."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return save(
        path, nodes, {}, [("x", TensorProto.FLOAT, [2, 8])], [("y", TensorProto.FLOAT, [2, 8])]
    )


def save(path: Path, nodes, arrays, inputs, outputs, opset: int = 17) -> Path:  # type: ignore[no-untyped-def]
    """Writes a model with float32 initializers."""
    initializers = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in arrays.items()
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
