# SPDX-License-Identifier: Apache-2.0
"""Which weights are found, what they are, and how the coder sees them; lifting from wherever they
hide."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes import LiftWeights, Weight, coder_view, select_weights
from passes.select_weights import bounded_view
from tests.passes_models import model_of, network, normal, proto_of, run

HEADER = '< ir_version: 9, opset_import: ["" : 18, "local" : 1, "com.microsoft" : 1] >'


def weights_of(text: str, tensors: dict[str, np.ndarray]) -> dict[str, Weight]:
    return {w.name: w for w in select_weights(model_of(proto_of(HEADER + text, tensors)))}


@pytest.mark.parametrize(
    ("node", "shape", "role", "channel"),
    [
        ("Conv (x, w)", (8, 4, 3), "weight", 0),
        ("ConvTranspose (x, w)", (4, 8, 3), "weight", 1),
        ("Gemm (x, w)", (4, 8), "weight", 1),
        ("Gemm <transB = 1> (x, w)", (8, 4), "weight", 0),
        ("Gemm (w, x)", (8, 4), "weight", 0),
        ("MatMul (x, w)", (4, 8), "weight", 1),
        ("MatMul (w, x)", (8, 4), "weight", 0),
        ("MatMul (x, w)", (2, 4, 8), "weight", 2),
        ('Einsum <equation = "ab,bc->ac"> (x, w)', (4, 8), "weight", None),
        ("Gather (w, i)", (100, 8), "embedding", 0),
        ("Gather <axis = 1> (w, i)", (8, 100), "embedding", 1),
        ("com.microsoft.FusedMatMul <transB = 1> (x, w)", (8, 4), "weight", 0),
        ("Add (x, w)", (64, 64), "weight", None),
        ("Add (x, w)", (8, 8), "minor", None),
        ("Add (x, w)", (5000,), "minor", None),
    ],
)
def test_roles_and_channels(
    node: str, shape: tuple[int, ...], role: str, channel: int | None
) -> None:
    text = f"g (float[N] x, int64[N] i) => (float[M] y) {{ y = {node} }}"
    weight = weights_of(text, {"w": normal(*shape)})["w"]
    assert (weight.role, weight.channel_axis, weight.shape) == (role, channel, shape)
    assert weight.op_types == (node.split(" ")[0].split(".")[-1],)
    assert np.array_equal(weight.array(), normal(*shape)) and weight.num_bytes == 4 * prod(shape)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent(kind: str) -> None:
    text = (
        f"g (float[S,N,4] x) => (float[S,1,N,8] y) {{ y = {kind} <hidden_size = 8> (x, w, r, b) }}"
    )
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    tensors = {
        "w": normal(1, 8 * gates, 4),
        "r": normal(1, 8 * gates, 8),
        "b": normal(1, 16 * gates),
    }
    found = weights_of(text, tensors)
    assert {n: w.role for n, w in found.items()} == {
        "w": "recurrent",
        "r": "recurrent",
        "b": "minor",
    }
    assert found["w"].channel_axis == 1 and coder_view(found["r"]) == (None, (1, 8 * gates, 8))


def test_through_transpose_reshape_cast() -> None:
    text = """g (float[N,4] x, int64[M] i) => (float[N,50] y, float[M,4] z) {
      t = Transpose <perm = [1, 0]> (w)
      c = Cast <to = 1> (t)
      y = MatMul (x, c)
      z = Gather (w, i)
    }"""
    weight = weights_of(text, {"w": normal(50, 4)})["w"]
    assert weight.op_types == ("MatMul", "Gather") or weight.op_types == ("Gather", "MatMul")
    assert weight.role == "weight" and weight.channel_axis == 0
    text = "g (float[N,4] x, int64[2] s) => (float[N,8] y) { r = Reshape (w, s) y = MatMul (x, r) }"
    weight = weights_of(text, {"w": normal(8, 4)})["w"]
    assert weight.role == "weight" and weight.channel_axis is None


def test_convolution_behind_a_transpose_is_seen_in_its_own_order() -> None:
    text = """g (float[N,4,9,9] x) => (float[N,8,7,7] y) {
      t = Transpose <perm = [3, 2, 0, 1]> (w)
      y = Conv (x, t)
    }"""
    weight = weights_of(text, {"w": normal(3, 3, 4, 8)})["w"]
    assert weight.channel_axis == 3
    assert coder_view(weight) == ((3, 2, 0, 1), (8, 4, 9))


def test_integers_and_steering_values() -> None:
    text = """g (uint8[N,4] x, float[N,4] f)
      => (float[N,8] y, int32[N,8] z, float[N,4] c, uint8[N,8] e) {
      d = DequantizeLinear <axis = 1> (q, s, o)
      y = MatMul (f, d)
      z = MatMulInteger (x, u)
      c = Clip (f, low, low)
      e = QLinearMatMul (x, one, zero, p, one, zero, one, zero)
    }"""
    tensors = {
        "q": np.ones((4, 8), np.int8),
        "s": np.ones(8, np.float32),
        "o": np.zeros(8, np.int8),
        "u": np.ones((4, 8), np.uint8),
        "p": np.ones((4, 8), np.uint8),
        "low": np.float32(0),
        "one": np.float32(1),
        "zero": np.uint8(0),
    }
    found = weights_of(text, tensors)
    assert {n: w.role for n, w in found.items()} == {"q": "integer", "u": "integer", "p": "integer"}
    assert found["q"].channel_axis == 1


def test_left_alone() -> None:
    text = "g (float[4] x) => (float[4] y, float[4,4] w) { y = MatMul (x, w) }"
    assert weights_of(text, {"w": normal(4, 4), "dead": normal(40, 40)}) == {}


IF = """g (float[N,4] x, bool b) => (float[N,8] y) {
  y = If (b) <
    then_branch = t () => (float[N,8] o) {
      k = Constant <value = float[4,8] {VALUES}> ()
      o = MatMul (x, k)
    },
    else_branch = e () => (float[N,8] o) {
      k = Constant <value = float[4,8] {OTHERS}> ()
      h = MatMul (x, k)
      o = Add (h, shared)
    }
  >
}""".replace("VALUES", ", ".join(str(i) for i in range(32))).replace(
    "OTHERS", ", ".join(["2"] * 32)
)


def test_constants_of_sibling_branches_come_to_the_main_graph() -> None:
    proto = proto_of(HEADER + IF, {"shared": normal(8)})
    model = ir.serde.deserialize_model(proto)
    assert LiftWeights()(model).modified and not LiftWeights()(model).modified
    found = {w.name: w.role for w in select_weights(model)}
    assert list(found.values()) == ["minor", "weight", "weight"] and len(found) == 3
    for b in (True, False):
        inputs = {"x": normal(3, 4), "b": np.array(b)}
        assert np.array_equal(run(proto, inputs)["y"], run(model, inputs)["y"])


LOOP = """g (float[4,4] x, int64 n) => (float[4,4] y) {
  t = Constant <value = bool {1}> ()
  y = Loop (n, t, x) <body = b (int64 i, bool c, float[4,4] s) => (bool co, float[4,4] so) {
    co = Identity (c)
    so = MatMul (s, w)
  }>
}"""


def test_uses_inside_of_a_loop_body() -> None:
    assert weights_of(LOOP, {"w": normal(4, 4)})["w"].op_types == ("MatMul",)


FUNCTIONS = """g (float[N,4] x) => (float[N,8] y) {
  a = local.dense (x, w)
  y = local.fixed (a)
}
< domain: "local", opset_import: ["" : 18] >
dense (p, q) => (r) { r = MatMul (p, q) }
< domain: "local", opset_import: ["" : 18] >
fixed (p) => (r) {
  k = Constant <value = float[8,8] {VALUES}> ()
  r = MatMul (p, k)
}""".replace("VALUES", ", ".join(str(i) for i in range(64)))


def test_functions() -> None:
    proto = proto_of(HEADER + FUNCTIONS, {"w": normal(4, 8)})
    model = model_of(proto)
    found = select_weights(model)
    assert {w.role for w in found} == {"weight"} and len(found) == 2
    assert [key[1] for key in model.functions] == ["dense"]
    inputs = {"x": normal(3, 4)}
    np.testing.assert_allclose(run(model, inputs)["y"], run(proto, inputs)["y"], rtol=1e-6)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=4).filter(lambda d: 2 <= prod(d) < 10**7))
def test_views_hold_every_element(shape: list[int]) -> None:
    value = ir.Value(name="w")
    for convolution in (True, False):
        weight = Weight(
            "w",
            value,
            tuple(shape),
            ir.DataType.FLOAT,
            "weight",
            ("Conv",),
            is_convolution=convolution,
        )
        _, (a, b, c) = coder_view(weight)
        size = prod(shape)
        assert min(a, b, c) >= 1 and size <= a * b * c < size + 64
        if len(shape) > 1 and size > max(shape):
            assert a * b * c == size


def test_views() -> None:
    weights = {w.name: coder_view(w)[1] for w in select_weights(model_of(network()))}
    assert weights["conv_w"] == (32, 8, 9)
    assert weights["gemm_w"] == (1, 96, 32)
    assert weights["conv_b"] == (1, 1, 32) and weights["gemm_b"] == (1, 2, 64)
    few = weights_of(
        "g (float[N,3] x) => (float[N,3200] y) { y = MatMul (x, w) }", {"w": normal(3, 3200)}
    )
    rows, chunks, length = coder_view(few["w"])[1]
    assert rows == 3 and rows * chunks >= 32 and chunks * length == 3200


@pytest.mark.parametrize("length", [100_000, 65536, 99_991])
def test_long_rows_are_divided(length: int) -> None:
    a, b, c = bounded_view((3, 40, length))
    assert c <= 32768
    assert 0 <= a * b * c - 120 * length < 64
    assert bounded_view((3, 40, 32768)) == (3, 40, 32768)
