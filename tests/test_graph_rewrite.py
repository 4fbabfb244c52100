# SPDX-License-Identifier: Apache-2.0
"""What load and stream mode make of a model, and that it still computes the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

import runtime
from runtime import InferenceSession, graph_rewrite
from runtime.graph_values import is_toolkit_node
from tests.decode_models import (
    CPU,
    MODES,
    Array,
    check_all,
    model,
    node,
    sample,
    std,
    symbols,
    take,
    two_matmuls,
    x_of,
)


def test_load_mode_leaves_no_node_of_the_toolkit_and_no_blob() -> None:
    compressed, _ = two_matmuls()
    parts = graph_rewrite.cut(graph_rewrite.prepare(compressed))
    assert parts is not None
    assert sorted(parts.weights) == ["w0", "w1"]
    assert [made.op_type for made in parts.rest.graph.node] == ["MatMul", "Relu", "MatMul"]
    assert not parts.rest.graph.initializer
    assert all(entry.domain == "" for entry in parts.rest.opset_import)


def test_stream_mode_fuses_every_weight() -> None:
    from runtime.graph_fuse import fuse

    compressed, _ = two_matmuls()
    assert fuse(compressed) == 2
    ops = [made.op_type for made in compressed.graph.node]
    assert ops == ["DecodeDequantize", "DecodeLookup", "MatMul", "Relu", "MatMul"]
    names = {tensor.name for tensor in compressed.graph.initializer}
    assert names == {"blob", "scale", "codebook"}


def test_chains_of_other_operators_are_decoded_once_too() -> None:
    nodes, constants, values = sample()
    nodes += [
        std("Transpose", ["w0"], ["t"], perm=[1, 0]),
        std("Mul", ["t", "gain"], ["m"]),
        std("Add", ["m", "shift"], ["w2"]),
        std("MatMul", ["w2", "x"], ["y"]),
    ]
    constants |= {"gain": np.float32(0.5), "shift": np.ones((16, 24), np.float32)}
    inputs = [("x", TensorProto.FLOAT, [24, "batch"])]
    compressed = model(nodes, constants, ["y"], inputs)
    weight = values["w0"].T * np.float32(0.5) + np.float32(1)
    plain = model([std("MatMul", ["w2", "x"], ["y"])], {"w2": weight}, ["y"], inputs)
    check_all(compressed, plain, {"x": np.ascontiguousarray(x_of().T)})
    parts = graph_rewrite.cut(graph_rewrite.prepare(compressed))
    assert parts is not None and list(parts.weights) == ["w2"]


def test_decoding_inside_of_subgraphs() -> None:
    nodes, constants, values = sample()

    def branch(own: list[onnx.NodeProto], weight: str, name: str) -> onnx.GraphProto:
        body = [*own, std("MatMul", ["x", weight], [f"{name}_y"])]
        return helper.make_graph(body, name, [], [onnx.ValueInfoProto(name=f"{name}_y")])

    # The first branch decodes inside, the second reads a value of the graph around it, and both
    # use the same inner name.
    inner = [
        std("DequantizeLinear", ["q0", "scale"], ["inner"], axis=1),
        std("Identity", ["inner"], ["same"]),
    ]
    other = [std("Neg", ["w0"], ["same"])]
    condition = std(
        "If",
        ["flag"],
        ["y"],
        then_branch=branch(inner, "same", "then"),
        else_branch=branch(other, "same", "else"),
    )
    inputs = [("x", TensorProto.FLOAT, [3, 24]), ("flag", TensorProto.BOOL, [])]
    compressed = model([*nodes, condition], constants, ["y"], inputs)
    for mode in MODES:
        session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
        for flag, sign in ((True, 1), (False, -1)):
            found = session.run(None, {"x": x_of(), "flag": np.array(flag)})[0]
            np.testing.assert_allclose(found, x_of() @ (sign * values["w0"]), rtol=2e-5, atol=1e-5)
    parts = graph_rewrite.cut(graph_rewrite.prepare(compressed))
    assert parts is not None and all(entry.domain == "" for entry in parts.rest.opset_import)


def test_a_subgraph_may_put_out_a_weight() -> None:
    nodes, constants, values = sample()
    dequantize = std("DequantizeLinear", ["q0", "scale"], ["a"], axis=1)
    then = helper.make_graph([dequantize], "t", [], [onnx.ValueInfoProto(name="a")])
    other = helper.make_graph([std("Neg", ["w0"], ["b"])], "e", [], [onnx.ValueInfoProto(name="b")])
    nodes.append(std("If", ["flag"], ["y"], then_branch=then, else_branch=other))
    compressed = model(nodes, constants, ["y"], [("flag", TensorProto.BOOL, [])])
    for mode in MODES:
        session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
        found = session.run(None, {"flag": np.array(True)})[0]
        np.testing.assert_array_equal(found, values["w0"])


def test_decoding_inside_of_a_local_function() -> None:
    nodes, constants, values = sample()
    function = helper.make_function(
        "local",
        "Layer",
        ["x", "blob", "scale"],
        ["y"],
        [*nodes[:3], std("MatMul", ["x", "w0"], ["y"])],
        [helper.make_opsetid("", 21), helper.make_opsetid("toolkit", 1)],
    )
    call = helper.make_node("Layer", ["x", "blob", "scale"], ["y"], domain="local")
    inputs = [("x", TensorProto.FLOAT, ["batch", 24])]
    used = {name: constants[name] for name in ("blob", "scale")}
    compressed = model([call], used, ["y"], inputs, domains=["local"])
    compressed.functions.append(function)
    plain = model([std("MatMul", ["x", "w0"], ["y"])], {"w0": values["w0"]}, ["y"], inputs)
    check_all(compressed, plain, {"x": x_of()})


def test_function_bodies_of_the_toolkit_are_dropped() -> None:
    compressed, plain = two_matmuls()
    body = helper.make_function(
        "toolkit", "DecodeWide", ["b"], ["s"], [std("Cast", ["b"], ["s"], to=TensorProto.INT8)],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    compressed.functions.append(body)  # a wrong body: the library's kernel must be used
    check_all(compressed, plain, {"x": x_of()})


def test_quantised_weights_of_an_integer_model_stay_integers() -> None:
    quantised = symbols((24, 16), 3)
    blob = runtime.encode_wide([quantised[None]])
    constants: dict[str, Array] = {
        "blob": blob,
        "one": np.float32(0.02),
        "zero": np.int8(3),
        "scale": np.float32(0.01),
    }
    nodes = [
        node("DecodeWide", ["blob"], ["symbols"]),
        take(blob, 0, "symbols", "q", (24, 16)),
        std("DequantizeLinear", ["q", "scale"], ["w"]),
        std("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        std("DequantizeLinear", ["xq", "one", "zero"], ["xd"]),
        std("MatMul", ["xd", "w"], ["y"]),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", 24])]
    compressed = model(nodes, constants, ["y"], inputs)
    plain = model(nodes[2:], {**constants, "q": quantised}, ["y"], inputs)
    parts = graph_rewrite.cut(
        graph_rewrite.prepare(onnx.ModelProto.FromString(compressed.SerializeToString()))
    )
    assert parts is not None and list(parts.weights) == ["q"]
    check_all(compressed, plain, {"x": x_of()})


def test_an_initializer_that_callers_may_override_is_no_constant() -> None:
    compressed, _ = two_matmuls()
    compressed.graph.input.add().CopyFrom(
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, [16])
    )
    for mode in MODES:
        session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
        zeros = np.zeros(16, np.float32)
        assert not session.run(None, {"x": x_of(), "scale": zeros})[0].any()
        assert session.run(None, {"x": x_of()})[0].any()


def test_nodes_of_the_library_are_known() -> None:
    compressed, _ = two_matmuls()
    assert sum(is_toolkit_node(made) for made in compressed.graph.node) == 3
