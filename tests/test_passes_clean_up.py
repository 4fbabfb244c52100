# SPDX-License-Identifier: Apache-2.0
"""Clean-up and function embedding: what goes, what stays, and that a second run changes nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from passes import (
    CleanUp,
    EmbedFunctions,
    EncodeWeights,
    SettingsError,
    WeightSettings,
    model_to_proto,
)
from passes.chain_builder import short_names
from tests.passes_models import model_of, network, normal, portable, proto_of, run

MESSY = """
< ir_version: 9, opset_import: ["" : 18, "local" : 1, "unused.domain" : 3] >
g (float[N,64] input) => (float[N,64] output) {
  unused_value = Relu (input)
  first_hidden = MatMul (input, weight)
  second_hidden = MatMul (first_hidden, twin)
  shape_of_it = Constant <value = int64[2] {-1, 64}> ()
  third_hidden = Reshape (second_hidden, shape_of_it)
  output = Add (third_hidden, bias)
}
< domain: "local", opset_import: ["" : 18] >
nobody (p) => (r) { r = Relu (p) }
"""


def messy() -> ir.Model:
    tensors = {n: normal(64, 64) for n in ("weight", "twin", "dead")} | {"bias": normal(64, seed=2)}
    proto = proto_of(MESSY, tensors)
    for number, node in enumerate(proto.graph.node):
        node.name, node.doc_string = f"/model/{node.op_type}{number}", "File x.py, line 3"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File x.py" * 20)
    proto.graph.doc_string = "text"
    proto.metadata_props.add(key="names", value="cat, dog")
    return model_of(proto)


def test_removes_what_computes_nothing() -> None:
    model, before = messy(), run(messy(), {"input": normal(2, 64)})
    assert CleanUp()(model).modified
    proto = model_to_proto(model)
    assert [node.op_type for node in proto.graph.node] == [
        "MatMul",
        "MatMul",
        "Constant",
        "Reshape",
        "Add",
    ]
    assert sorted(t.name for t in proto.graph.initializer) == ["bias", "weight"]
    assert not proto.functions and [o.domain for o in proto.opset_import] == [""]
    assert not proto.graph.doc_string and not proto.graph.value_info
    assert not any(n.name or n.doc_string or n.metadata_props for n in proto.graph.node)
    assert [p.key for p in proto.metadata_props] == ["names"]
    assert [v.name for v in proto.graph.output] == ["output"]
    assert max(len(name) for node in proto.graph.node[:-1] for name in node.output) == 1
    assert np.array_equal(run(model, {"input": normal(2, 64)})["output"], before["output"])
    assert not CleanUp()(model).modified


def test_options_keep_names() -> None:
    model = messy()
    CleanUp(rename_values=False, keep_node_names=True)(model)
    assert (
        model.graph[0].name == "/model/MatMul1" and model.graph[0].outputs[0].name == "first_hidden"
    )
    assert not CleanUp(rename_values=False, keep_node_names=True)(model).modified
    CleanUp(keep=["second_hidden"])(model)
    assert model.graph[1].outputs[0].name == "second_hidden"


def test_renames_in_subgraphs() -> None:
    text = """< ir_version: 8, opset_import: ["" : 17] >
    g (float[N,4] x, bool b) => (float[N,4] y) {
      outer_value = Relu (x)
      y = If (b) <
        then_branch = t () => (float[N,4] branch_out) { branch_out = MatMul (outer_value, w) },
        else_branch = e () => (float[N,4] branch_out2) { inner_value = Neg (outer_value)
          branch_out2 = Exp (inner_value) }
      >
    }"""
    proto = proto_of(text, {"w": normal(4, 4)})
    model = model_of(proto)
    assert CleanUp()(model).modified and not CleanUp()(model).modified
    assert "outer_value" not in ir.serde.serialize_model(model).SerializeToString().decode("latin1")
    for b in (True, False):
        inputs = {"x": normal(3, 4), "b": np.array(b)}
        assert np.array_equal(run(model, inputs)["y"], run(proto, inputs)["y"])


def test_merges_bfloat16_but_not_other_types() -> None:
    text = """< ir_version: 9, opset_import: ["" : 18] >
    g (float[2] x) => (float[2] y, int32[2] z) {
      a = Cast <to = 1> (p) b = Cast <to = 1> (q)
      c = Add (a, b) y = Add (x, c) z = Identity (r) }"""
    half = np.zeros(2, ir.DataType.BFLOAT16.numpy())
    model = model_of(proto_of(text, {"p": half, "q": half, "r": np.zeros(2, np.int32)}))
    CleanUp()(model)
    assert len(model.graph.initializers) == 2


def test_weights_keep_their_names_after_encoding() -> None:
    model = model_of(network())
    EncodeWeights({n: WeightSettings(bits=8) for n in ("conv_w", "gemm_w", "matmul_w")})(model)
    assert CleanUp()(model).modified and not CleanUp()(model).modified
    names = {output.name for node in model.graph for output in node.outputs}
    assert {"conv_w", "gemm_w", "matmul_w", "y"} <= names
    assert {"conv_b", "gemm_b"} <= set(model.graph.initializers)


def test_short_names() -> None:
    names = short_names({"b", "aa"})
    first = [next(names) for _ in range(5000)]
    assert first[:3] == ["a", "c", "d"] and len(set(first)) == 5000
    assert not any(name[0].isdigit() for name in first) and max(map(len, first)) == 3


def test_embedding_modes() -> None:
    model = model_of(network())
    assert not EmbedFunctions("always")(model).modified  # nothing of the toolkit in it
    EncodeWeights({n: WeightSettings(bits=8) for n in ("conv_w", "gemm_w", "matmul_w")})(model)
    assert not EmbedFunctions("auto")(
        model
    ).modified  # the bodies are more than 1 % of so small a file
    assert EmbedFunctions("auto", limit=1e6)(model).modified
    assert {"DecodeWide", "TakeTensor"} <= {key[1] for key in model.functions}
    assert not EmbedFunctions("always")(model).modified
    assert not CleanUp()(portable(model)).modified or not CleanUp()(model).modified
    assert EmbedFunctions("never")(model).modified and not model.functions
    assert not EmbedFunctions("never")(model).modified
    with pytest.raises(SettingsError):
        EmbedFunctions("sometimes")  # type: ignore[arg-type]
