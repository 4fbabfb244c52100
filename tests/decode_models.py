# SPDX-License-Identifier: Apache-2.0
"""Small models of the form that the toolkit writes, and what they must compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import runtime
from runtime import InferenceSession

Array = npt.NDArray[Any]
CPU = ["CPUExecutionProvider"]
MODES: tuple[Any, ...] = ("load", "stream")


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
) -> onnx.NodeProto:
    """Make a node of the toolkit's domain; an empty list becomes an empty list of integers."""
    empty = [name for name, value in attributes.items() if isinstance(value, list) and not value]
    filled = {name: value for name, value in attributes.items() if name not in empty}
    made = helper.make_node(
        op, inputs, outputs, name=f"{op}_{outputs[0]}", domain="toolkit", **filled
    )
    for name in empty:
        made.attribute.append(
            onnx.AttributeProto(name=name, type=onnx.AttributeProto.INTS, ints=[])
        )
    return made


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array],
    outputs: Sequence[str],
    inputs: Sequence[tuple[str, int, list[Any]]] = (),
    *,
    opset: int = 21,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """Make a model whose outputs have no declared type."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("toolkit", 1)]
    imports += [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def look_up(symbols: str, output: str) -> list[onnx.NodeProto]:
    """Make the nodes of `book[symbols + offset]`."""
    return [
        std("Cast", [symbols], ["c"], to=TensorProto.INT32),
        std("Add", ["c", "offset"], ["i"]),
        std("Gather", ["book", "i"], [output]),
    ]


def take(
    blob: Array, index: int, symbols: str, output: str, shape: Sequence[int]
) -> onnx.NodeProto:
    """Make the TakeTensor node of one tensor of a wide blob."""
    tensor = runtime.WideReader(blob).tensors[index]
    a, b, c = tensor.shape
    return node(
        "TakeTensor",
        [symbols],
        [output],
        lane=tensor.first_lane,
        lanes=tensor.num_lanes,
        steps=min(tensor.rows_per_lane, a * b) * c,
        shape=list(shape),
    )


def symbols(
    shape: tuple[int, ...], seed: int = 0, spread: float = 4.0, dtype: Any = np.int8
) -> Array:
    """Make Laplacian symbols, as weights have them after uniform quantisation."""
    values = np.random.default_rng(seed).laplace(0, spread, shape)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values), limits.min, limits.max).astype(dtype)


def std(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    """Make a node of the standard domain."""
    return helper.make_node(op, inputs, outputs, **attributes)


def sample(seed: int = 0) -> tuple[list[onnx.NodeProto], dict[str, Array], dict[str, Array]]:
    """Return the decoding of weights w0 (24 x 16) and w1 (16 x 8), its constants, the weights."""
    first, second = symbols((1, 24, 16), seed), symbols((1, 16, 8), seed + 1, 30.0)
    blob = runtime.encode_wide([first, second], steps=64)
    scale = np.random.default_rng(seed).uniform(0.01, 0.1, 16).astype(np.float32)
    codebook = np.sort(np.random.default_rng(seed).normal(size=256)).astype(np.float32)
    nodes = [
        node("DecodeWide", ["blob"], ["symbols"]),
        take(blob, 0, "symbols", "q0", (24, 16)),
        std("DequantizeLinear", ["q0", "scale"], ["w0"], axis=1),
        take(blob, 1, "symbols", "q1", (16, 8)),
        std("Cast", ["q1"], ["c1"], to=TensorProto.INT32),
        std("Add", ["c1", "offset"], ["i1"]),
        std("Gather", ["codebook", "i1"], ["w1"]),
    ]
    constants = {
        "blob": blob,
        "scale": scale,
        "codebook": codebook,
        "offset": np.array(128, np.int32),
    }
    values = {
        "w0": first[0].astype(np.float32) * scale,
        "w1": codebook[second[0].astype(int) + 128],
    }
    return nodes, constants, values


def two_matmuls(seed: int = 0) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return a compressed model and the plain model that it stands for."""
    nodes, constants, values = sample(seed)
    body = [
        std("MatMul", ["x", "w0"], ["y"]),
        std("Relu", ["y"], ["r"]),
        std("MatMul", ["r", "w1"], ["z"]),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", 24])]
    compressed = model([*nodes, *body], constants, ["z"], inputs)
    return compressed, model(body, values, ["z"], inputs)


def x_of(batch: int = 3) -> Array:
    """Return an input for the models: float32 [batch, 24]."""
    return np.random.default_rng(9).normal(size=(batch, 24)).astype(np.float32)


def plain_run(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """Run a plain model in onnxruntime."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=CPU)
    return session.run(None, feeds)


def check_all(compressed: onnx.ModelProto, plain: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    """Compare both modes with the plain model: load mode exactly."""
    expected = plain_run(plain, feeds)
    for mode in MODES:
        session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
        for found, wanted in zip(session.run(None, feeds), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
            if mode == "load":
                np.testing.assert_array_equal(found, wanted)
