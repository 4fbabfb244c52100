# SPDX-License-Identifier: Apache-2.0
"""What quantisers decode is what the graph computes, bit for bit, in all three ways to run it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import runtime
from passes import CleanUp, EncodeWeights
from passes.schemes import (
    Binary,
    Codebook,
    FitContext,
    FixedPoint,
    Parameters,
    Points,
    PowerOfTwo,
    Scaled,
    Ternary,
    Uniform,
)
from runtime.chain_decoder import decode_chains
from runtime.graph_values import scan
from tests.passes_models import model_of, normal, portable, proto_of, run

CPU = ["CPUExecutionProvider"]
POINTS = Points((-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0))
SCHEMES = [
    Uniform(bits=4, scaling="linear"),
    Uniform(bits=6, scaling="linear", granularity="row"),
    Uniform(bits=4, scaling="linear", granularity="group"),
    Uniform(bits=10, scaling="linear", granularity="bucket"),
    Uniform(bits=4, granularity="bucket", group_size=100),
    Uniform(bits=4, symmetric=False, granularity="bucket", group_size=64),
    Uniform(bits=8, scaling="absnorm", rounding="stochastic"),
    FixedPoint(2, 4),
    FixedPoint(2, 9),
    PowerOfTwo(4),
    Binary(),
    Binary(granularity="row"),
    Ternary(granularity="group"),
    Ternary(granularity="bucket", group_size=200),
    POINTS,
    Codebook(300),
    Codebook(8, start="density", fix_zeros=True),
    Scaled(inner=POINTS),
    Scaled(inner=POINTS, granularity="row"),
    Scaled(inner=POINTS, granularity="bucket", group_size=100),
    Scaled(inner=Points((0.0, 0.1, 0.4, 1.0)), scaling="linear", granularity="group"),
    Scaled(inner=Uniform(bits=4), scaling="absnorm", granularity="bucket", group_size=96),
]
# One-hot inputs bring out every element of a weight as it is.
TEXT = """
< ir_version: 8, opset_import: ["" : {opset}] >
net ({kind}[N,12] a, {kind}[N,8,3,3] b) => ({outputs}) {{
{nodes}
}}
"""


NODES = {
    "w": "yw{0} = MatMul (a, w{0})",
    "t": "u{0} = Transpose <perm = [1, 0]> (t{0}) yt{0} = MatMul (a, u{0})",
    "c": "yc{0} = Conv (b, c{0})",
}
SIZES = {"w": (12, 330), "t": (330, 12), "c": (16, 8, 3, 3)}


def network(opset: int, dtype: np.dtype) -> onnx.ModelProto:
    """For each scheme a MatMul with its weight, behind a Transpose for each second one, a Conv."""
    number = "float16" if dtype == np.float16 else "float"
    outputs, nodes, tensors = [], [], {}
    for index in range(len(SCHEMES)):
        for kind in ("w", "tc"[index % 2]):
            shape = SIZES[kind]
            values = normal(*shape, seed=index) + np.float32(0.2)
            tensors[f"{kind}{index}"] = values.astype(dtype)
            nodes.append(NODES[kind].format(index))
            unknown = ",".join("ijkl"[: len(shape)])
            outputs.append(f"{number}[{unknown}] y{kind}{index}")
    text = TEXT.format(opset=opset, kind=number, outputs=", ".join(outputs), nodes="\n".join(nodes))
    return proto_of(text, tensors)


def seen(output: str, value: np.ndarray) -> np.ndarray:
    """The weight behind an output of one-hot inputs."""
    if output.startswith("yt"):
        return value.T
    return value.T.reshape(16, 8, 3, 3) if output.startswith("yc") else value


@pytest.mark.parametrize(("opset", "dtype"), [(13, np.float32), (21, np.float16)], ids=str)
def test_three_ways(opset: int, dtype: Any) -> None:
    proto = network(opset, np.dtype(dtype))
    plan: dict[str, Parameters] = {}
    originals = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for name, weight in originals.items():
        plan[name] = SCHEMES[int(name[1:])].fit(weight, FitContext(channel_axis=0))
    model = model_of(proto)
    EncodeWeights(plan)(model)
    CleanUp()(model)
    left = set(plan) & set(model.graph.initializers)
    assert len(left) < 6, left  # where scales for three taps, or 300 entries, outweigh the gain
    data = ir.serde.serialize_model(portable(model)).SerializeToString()
    onnx.checker.check_model(data)
    feeds = {
        "a": np.eye(12, dtype=dtype),
        "b": np.eye(72, dtype=dtype).reshape(72, 8, 3, 3),
    }
    outputs = [output.name for output in proto.graph.output]
    for name, session in {
        "load": runtime.InferenceSession(data, providers=CPU),
        "stream": runtime.InferenceSession(data, providers=CPU, mode="stream"),
        "stock": onnxruntime.InferenceSession(data, providers=CPU),
    }.items():
        for output, value in zip(outputs, session.run(outputs, feeds), strict=True):
            weight, found = output[1:], seen(output, value.squeeze())
            expected = originals[weight] if weight in left else plan[weight].decode()
            assert found.dtype == expected.dtype
            place = f"{name}, {output}: {SCHEMES[int(output[2:])]}"
            np.testing.assert_array_equal(found, expected, err_msg=place)


def test_chains_are_decoded_without_a_session() -> None:
    model = model_of(network(21, np.dtype(np.float32)))
    plan = {}
    for index, scheme in enumerate(SCHEMES):
        weight = model.graph.initializers[f"w{index}"].const_value
        plan[f"w{index}"] = scheme.fit(weight.numpy(), FitContext(channel_axis=0))
    EncodeWeights(plan)(model)
    CleanUp()(model)
    proto = ir.serde.serialize_model(model)
    scope = scan(proto.graph, overridable=True)
    names = [name for name in plan if name not in model.graph.initializers]
    found = decode_chains({name: (scope, name) for name in names}, "", 1)
    assert set(found) == set(names)
    for name in names:
        assert found[name].tobytes() == plan[name].decode().tobytes()


def test_a_joint_codebook_is_stored_once() -> None:
    model = model_of(network(17, np.dtype(np.float32)))
    arrays = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if "w" in n}
    EncodeWeights(Codebook(64).fit_joint(arrays))(model)
    books = [v for v in model.graph.initializers.values() if v.shape == ir.Shape((64,))]
    assert len(books) == 1


def test_bfloat16() -> None:
    text = """< ir_version: 8, opset_import: ["" : 21] >
    g (float[N,64] x) => (float[N,96] y) { c = Cast <to = 1> (w) y = MatMul (x, c) }"""
    weight = normal(64, 96).astype(ir.DataType.BFLOAT16.numpy())
    for scheme in (
        Uniform(bits=5, scaling="linear", granularity="bucket", group_size=100),
        Ternary(),
        PowerOfTwo(4),
        Scaled(inner=POINTS, granularity="row"),
    ):
        model = model_of(proto_of(text, {"w": weight}))
        parameters = scheme.fit(weight)
        EncodeWeights({"w": parameters})(model)
        CleanUp()(model)
        identity = np.eye(64, dtype=np.float32)
        found = run(portable(model), {"x": identity})["y"]
        np.testing.assert_array_equal(found, parameters.decode().astype(np.float32))
