# SPDX-License-Identifier: Apache-2.0
"""Gradients that a model computes of itself, against differences of two runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import parser

from passes.gradients import with_gradients
from passes.gradients.backward import RULES

_HEAD = '<ir_version: 8, opset_import: ["" : {opset}]> g {signature} <{constants}> {{ {body} }}'
STEP = 1e-2


def _model(signature: str, constants: str, body: str, opset: int = 17) -> ir.Model:
    text = _HEAD.format(opset=opset, signature=signature, constants=constants, body=body)
    proto = onnx.shape_inference.infer_shapes(parser.parse_model(text))
    return ir.from_proto(proto)


def _run(model: ir.Model, names: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    copy = model.clone()
    values = {v.name: v for v in copy.graph.inputs}
    values |= {output.name: output for node in copy.graph for output in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    data = ir.to_proto(copy).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    given = {i.name: feed[i.name] for i in session.get_inputs()}
    return [np.asarray(found) for found in session.run(list(names), given)]


def _differentiated(model: ir.Model, names: Sequence[str]) -> dict[str, str]:
    """Names of gradients of y's product with a new input, seed."""
    y = next(value for value in model.graph.outputs if value.name == "y")
    seed = ir.Value(name="seed", shape=y.shape, type=ir.TensorType(ir.DataType.FLOAT))
    model.graph.inputs.append(seed)
    return with_gradients(model, names, {"y": seed})


def _check(
    model: ir.Model,
    shape: tuple[int, ...],
    out: tuple[int, ...],
    low: float = -2.0,
    high: float = 2.0,
) -> None:
    """The gradient with respect to x along a few directions."""
    generator = np.random.default_rng(1)
    x = generator.uniform(low, high, shape).astype(np.float32)
    seed = generator.standard_normal(out).astype(np.float32)
    plain = model.clone()
    gradients = _differentiated(model, ["x"])
    [found] = _run(model, [gradients["x"]], {"x": x, "seed": seed})
    assert found.shape == shape
    for _ in range(3):
        way = generator.standard_normal(shape).astype(np.float32)
        ends = [_run(plain, ["y"], {"x": x + sign * STEP * way})[0] for sign in (1, -1)]
        slope = float(np.vdot(seed, (ends[0] - ends[1]).astype(np.float64))) / (2 * STEP)
        size = np.linalg.norm(found) * np.linalg.norm(way) / np.sqrt(way.size)
        assert abs(float(np.vdot(found, way)) - slope) < 0.03 * size


@pytest.mark.parametrize(
    ("body", "low"),
    [
        ("y = Sigmoid(x)", -2.0),
        ("y = Tanh(x)", -2.0),
        ("y = Erf(x)", -2.0),
        ("y = Exp(x)", -2.0),
        ("y = Softplus(x)", -2.0),
        ("y = Neg(x)", -2.0),
        ("y = Identity(x)", -2.0),
        ("y = HardSigmoid(x)", -2.0),
        ("y = HardSwish(x)", -2.0),
        ("y = LeakyRelu <alpha = 0.3> (x)", 0.1),
        ("y = Relu(x)", 0.1),
        ("y = Abs(x)", 0.1),
        ("y = Clip(x, zero, one)", 0.1),
        ("y = Log(x)", 0.5),
        ("y = Sqrt(x)", 0.5),
        ("y = Reciprocal(x)", 0.5),
        ("y = Pow(x, half)", 0.5),
        ("y = Add(x, row)", -2.0),
        ("y = Sub(row, x)", -2.0),
        ("y = Mul(x, row)", -2.0),
        ("y = Mul(x, x)", -2.0),
        ("y = Div(row, x)", 0.5),
        ("c = Greater(row, one)  y = Where(c, x, row)", -2.0),
        ("y = Softmax <axis = 1> (x)", -2.0),
        ("y = LogSoftmax(x)", -2.0),
        ("y = LayerNormalization <axis = -1> (x, row, row)", -2.0),
        ("m = ReduceMean <axes = [1], keepdims = 0> (x)  u = Unsqueeze(m, ones)  y = Mul(u, x)", 0),
        ("t = Transpose <perm = [0, 2, 1]> (x)  p = MatMul(x, t)  y = MatMul(p, x)", -2.0),
        ("a = Sigmoid(x)  b = Concat <axis = 1> (a, x)  y = Reshape(b, wide)", -2.0),
    ],
)  # fmt: skip
def test_elementwise_and_shape_rules(body: str, low: float) -> None:
    out = "[2,6,4]" if "Concat" not in body else "[2,48]"
    constants = (
        "float zero = {0.0}, float one = {1.0}, float half = {1.5}, int64[1] ones = {1}, "
        "int64[2] wide = {2, 48}, float[4] row = {0.5, 1.5, -1.0, 2.0}"
    )
    model = _model(f"(float[2,6,4] x) => (float{out} y)", constants, body)
    shape = (2, 48) if "Concat" in body else (2, 6, 4)
    _check(model, (2, 6, 4), shape, low)


def test_broadcast_input_gets_the_sum() -> None:
    constants = "float[2,6,4] w = {" + ", ".join(str(i % 5 - 1.5) for i in range(48)) + "}"
    body = "a = Mul(w, x)  y = Add(x, a)"
    _check(_model("(float[6,1] x) => (float[2,6,4] y)", constants, body), (6, 1), (2, 6, 4))


@pytest.mark.parametrize(("flip_a", "flip_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm(flip_a: int, flip_b: int) -> None:
    a, b = ("[5,3]" if flip_a else "[3,5]"), ("[4,5]" if flip_b else "[5,4]")
    values = ", ".join(str((i * 7) % 11 / 5 - 1) for i in range(20))
    attributes = f"alpha = 0.5, transA = {flip_a}, transB = {flip_b}"
    model = _model(
        f"(float{a} x) => (float[3,4] y)",
        f"float{b} w = {{{values}}}",
        f"y = Gemm <{attributes}> (x, w)",
    )
    _check(model, (5, 3) if flip_a else (3, 5), (3, 4))


@pytest.mark.parametrize(
    ("attributes", "weight", "size"),
    [
        ("pads = [1, 1, 1, 1]", (4, 4, 3, 3), (7, 7)),
        ("pads = [0, 1, 1, 0], strides = [2, 2]", (4, 4, 3, 3), (3, 3)),
        ("strides = [3, 2]", (4, 4, 1, 2), (3, 3)),
        ("pads = [2, 2, 2, 2], dilations = [2, 2], group = 4", (4, 1, 3, 3), (7, 7)),
        ("strides = [2, 2], group = 2", (4, 2, 2, 2), (3, 3)),
    ],
)
def test_convolutions(attributes: str, weight: tuple[int, ...], size: tuple[int, int]) -> None:
    count = int(np.prod(weight))
    values = ", ".join(str((i * 7) % 11 / 5 - 1) for i in range(count))
    out = (2, weight[0], *size)
    model = _model(
        f"(float[2,4,7,7] x) => (float[{','.join(map(str, out))}] y)",
        f"float[{','.join(map(str, weight))}] w = {{{values}}}",
        f"y = Conv <{attributes}> (x, w)",
    )
    _check(model, (2, 4, 7, 7), out)


def test_pooling() -> None:
    body = "a = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)  y = GlobalAveragePool(a)"
    _check(_model("(float[2,3,6,6] x) => (float[2,3,1,1] y)", "", body), (2, 3, 6, 6), (2, 3, 1, 1))


def test_what_is_not_followed_is_left_out() -> None:
    """y = cumsum(a) + b: the gradient of `a` would lack a part, that of `b` is whole."""
    body = "a = Mul(x, x)  s = CumSum(a, axis)  b = Exp(x)  y = Add(s, b)  z = Neg(x)"
    model = _model("(float[3,4] x) => (float[3,4] y, float[3,4] z)", "int64 axis = {1}", body)
    assert "CumSum" not in RULES
    found = _differentiated(model, ["a", "b", "x", "s", "z"])
    assert set(found) == {"b", "s"}


def test_overlapping_maximum_pooling_is_not_followed() -> None:
    body = "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (x)"
    model = _model("(float[1,1,7,7] x) => (float[1,1,3,3] y)", "", body)
    assert not _differentiated(model, ["x"])
