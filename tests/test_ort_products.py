# SPDX-License-Identifier: Apache-2.0
"""The ops that decode and run, against ONNX Runtime's own operators with the decoded weight.

ONNX Runtime's kernel is the same in both, so the values are equal bit for bit where the weight is
an input of the plain model; one that is an initializer is packed beforehand, which may round
otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import runtime
from passes.function_bodies import function_bodies
from runtime import InferenceSession, graph_fuse, session_options
from runtime.graph_products import CPU_TYPES, CUDA_TYPES, fuse_products
from tests.decode_models import CPU, Array, model, node, plain_run, std, symbols
from tests.network_models import network
from tests.test_ort_ops import make_session

FLOAT = TensorProto.FLOAT


class Weight:
    """A weight of a shape, compressed: its nodes' inputs and attributes, and its values."""

    def __init__(self, shape: Sequence[int], kind: str = "plain", seed: int = 0) -> None:
        first = symbols((1, 7, 5), seed, 9.0)
        quantised = symbols((shape[0], int(np.prod(shape[1:-1])), shape[-1]), seed + 1, 9.0)
        self.constants: dict[str, Array] = {"blob": runtime.encode_wide([first, quantised])}
        self.attributes: dict[str, Any] = {"tensor": 1, "shape": list(shape)}
        random, whole = np.random.default_rng(seed), quantised.reshape(shape)
        self.suffix = ""
        if kind == "lookup":
            self.suffix = "Lookup"
            self.constants["codebook"] = random.normal(size=256).astype(np.float32)
            self.attributes["offset"] = 128
            self.values = self.constants["codebook"][whole.astype(int) + 128]
        elif kind == "plain":
            self.constants["scale"] = np.float32(0.03)
            self.values = whole.astype(np.float32) * np.float32(0.03)
        else:
            scale = random.uniform(0.01, 0.1, shape[0]).astype(np.float32)
            zero = random.integers(-9, 9, shape[0]).astype(np.int8)
            self.constants |= {"scale": scale, "zero": zero}
            self.attributes["axis"] = 0
            column = (-1, *[1] * (len(shape) - 1))
            centred = whole.astype(np.int32) - zero.reshape(column)
            self.values = centred.astype(np.float32) * scale.reshape(column)

    def node(self, op: str, bias: bool, **attributes: Any) -> onnx.NodeProto:
        names = ["x", *self.constants]
        if bias:
            if not self.suffix and "zero" not in names:
                names.append("")
            names.append("bias")
        return node(f"Decode{op}{self.suffix}", names, ["y"], **self.attributes, **attributes)


def check(op: str, weight: Weight, x: Array, bias: Array | None = None, **attributes: Any) -> Array:
    """Run the op, and the plain operator with the weight as an input and as an initializer."""
    more = {} if bias is None else {"bias": bias}
    dims = [f"d{n}" for n in range(x.ndim)]
    session = make_session(
        [weight.node(op, bias is not None, **attributes)],
        weight.constants | more,
        ["y"],
        [("x", FLOAT, dims)],
    )
    found = session.run(None, {"x": x})[0]
    left = op.startswith("Left")
    names = ["w", "x"] if left else ["x", "w", *more]
    plain = [std(op.removeprefix("Left"), names, ["y"], **attributes)]
    given = model(plain, more, ["y"], [("x", FLOAT, dims), ("w", FLOAT, weight.values.shape)])
    wanted = run_plain(given, {"x": x, "w": weight.values})
    np.testing.assert_array_equal(found, wanted)
    stored = model(plain, more | {"w": weight.values}, ["y"], [("x", FLOAT, dims)])
    np.testing.assert_allclose(found, run_plain(stored, {"x": x}), rtol=1e-4, atol=1e-4)
    again = session.run(None, {"x": x})[0]
    np.testing.assert_array_equal(again, found)
    return found


def run_plain(proto: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=CPU)
    return session.run(None, feeds)[0]


def x_of(*shape: int) -> Array:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["plain", "zero points", "lookup"])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 3, 24), (2, 1, 3, 24), (0, 24)])
def test_matrix_products(shape: tuple[int, ...], kind: str) -> None:
    found = check("MatMul", Weight((24, 17), kind), x_of(*shape))
    assert found.shape == (*shape[:-1], 17)


@pytest.mark.parametrize("kind", ["plain", "zero points", "lookup"])
@pytest.mark.parametrize("shape", [(24,), (24, 5), (2, 24, 3), (2, 1, 24, 3), (24, 0)])
def test_matrix_products_with_the_weight_on_the_left(shape: tuple[int, ...], kind: str) -> None:
    found = check("LeftMatMul", Weight((17, 24), kind), x_of(*shape))
    assert found.shape == ((*shape[:-2], 17, shape[-1]) if len(shape) > 1 else (17,))


@pytest.mark.parametrize("kind", ["plain", "zero points", "lookup"])
@pytest.mark.parametrize("turn_x", [0, 1])
@pytest.mark.parametrize("turn_weight", [0, 1])
def test_general_products(kind: str, turn_x: int, turn_weight: int) -> None:
    weight = Weight((17, 24) if turn_weight else (24, 17), kind)
    x = x_of(24, 6) if turn_x else x_of(6, 24)
    turns = {"transA": turn_x, "transB": turn_weight}
    check("Gemm", weight, x, **turns)
    check("Gemm", weight, x, x_of(17), **turns)
    check("Gemm", weight, x, x_of(6, 1), alpha=0.5, beta=-2.0, **turns)


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 20), (4, 3, 5), {}),
    ((2, 4, 20), (6, 2, 3), {"group": 2, "strides": [3], "pads": [2, 1]}),
    ((1, 3, 9, 11), (4, 3, 3, 3), {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
    ((2, 3, 13, 8), (5, 3, 3, 2), {"strides": [2, 3], "pads": [0, 1, 2, 0]}),
    ((1, 3, 12, 12), (4, 3, 3, 3), {"dilations": [2, 3], "pads": [1, 0, 1, 2]}),
    ((1, 8, 7, 7), (8, 1, 3, 3), {"group": 8, "strides": [2, 2], "auto_pad": "NOTSET"}),
    ((1, 3, 10, 9), (4, 3, 3, 4), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 3, 10, 9), (4, 3, 2, 3), {"strides": [3, 1], "auto_pad": "SAME_LOWER"}),
    ((1, 3, 10, 9), (4, 3, 1, 1), {"strides": [3, 3], "auto_pad": "SAME_UPPER"}),
    ((1, 3, 10, 9), (4, 3, 3, 3), {"strides": [2, 2], "auto_pad": "VALID"}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 3), {"pads": [1, 0, 1, 0, 1, 1]}),
]


@pytest.mark.parametrize("kind", ["plain", "zero points", "lookup"])
@pytest.mark.parametrize(("x", "w", "settings"), CONVOLUTIONS)
def test_convolutions(
    x: tuple[int, ...], w: tuple[int, ...], settings: dict[str, Any], kind: str
) -> None:
    check("Conv", Weight(w, kind), x_of(*x), **settings)
    check("Conv", Weight(w, kind), x_of(*x), x_of(w[0]), **settings)


def shapes_of(
    op: str, weight: Weight, shape: list[Any] | None, **attributes: Any
) -> list[int | str]:
    """The shape that ONNX Runtime infers for the output."""
    proto = model([weight.node(op, False, **attributes)], weight.constants, ["y"])
    x = onnx.helper.make_tensor_value_info("x", FLOAT, shape)
    proto.graph.input.append(x)
    options = onnxruntime.SessionOptions()
    runtime.register(options)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=CPU)
    return list(session.get_outputs()[0].shape)


def test_shapes_are_inferred() -> None:
    matrix, filters = Weight((24, 17)), Weight((4, 3, 3, 3))
    assert shapes_of("MatMul", matrix, ["batch", 7, 24]) == ["batch", 7, 17]
    assert shapes_of("LeftMatMul", matrix, ["batch", 17, 7]) == ["batch", 24, 7]
    assert shapes_of("LeftMatMul", matrix, [17, "columns"]) == [24, "columns"]
    assert shapes_of("LeftMatMul", matrix, [17]) == [24]
    assert shapes_of("Gemm", matrix, ["batch", 24]) == ["batch", 17]
    assert shapes_of("Gemm", matrix, [24, "batch"], transA=1) == ["batch", 17]
    assert shapes_of("Conv", filters, ["batch", 3, 9, 11], strides=[2, 2]) == ["batch", 4, 4, 5]
    shape = shapes_of("Conv", filters, ["batch", 3, "height", "width"])
    assert shape[:2] == ["batch", 4]
    assert len({*shape, "height", "width"}) == 6  # two more names: no size is taken for another


def test_open_dimensions_are_not_taken_for_equal() -> None:
    first, second = Weight((4, 3, 3, 3)), Weight((4, 4, 5, 5), seed=4)
    constants = {f"a_{name}": value for name, value in first.constants.items()}
    constants |= {f"b_{name}": value for name, value in second.constants.items()}
    nodes = [
        node("DecodeConv", ["x", "a_blob", "a_scale"], ["y"], **first.attributes),
        node("DecodeConv", ["y", "b_blob", "b_scale"], ["z"], **second.attributes),
        node("DecodeConv", ["z", "b_blob", "b_scale"], ["u"], **second.attributes),
        std("Relu", ["u"], ["v"]),
    ]
    session = make_session(nodes, constants, ["v"], [("x", FLOAT, ["n", 3, "h", "w"])])
    plain = [std("Conv", ["x", "a"], ["y"]), std("Conv", ["y", "b"], ["z"]),
             std("Conv", ["z", "b"], ["u"]), std("Relu", ["u"], ["v"])]  # fmt: skip
    weights = {"a": first.values, "b": second.values}
    proto = model(plain, weights, ["v"], [("x", FLOAT, ["n", 3, "h", "w"])])
    for size in ((1, 3, 16, 19), (2, 3, 30, 11)):
        x = x_of(*size)
        found = session.run(None, {"x": x})[0]
        np.testing.assert_allclose(found, run_plain(proto, {"x": x}), rtol=1e-4, atol=1e-3)


def test_an_input_of_any_rank_runs() -> None:
    weight = Weight((24, 17))
    proto = model(
        [weight.node("MatMul", False), std("Relu", ["y"], ["z"])], weight.constants, ["z"]
    )
    proto.graph.input.append(onnx.helper.make_tensor_value_info("x", FLOAT, None))
    options = onnxruntime.SessionOptions()
    runtime.register(options)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=CPU)
    for shape in ((5, 24), (2, 5, 24)):
        found = session.run(None, {"x": x_of(*shape)})[0]
        np.testing.assert_allclose(
            found, np.maximum(x_of(*shape) @ weight.values, 0), rtol=1e-4, atol=1e-4
        )


def refused(op: str, weight: Weight, x: Array, **attributes: Any) -> str:
    dims = [f"d{n}" for n in range(x.ndim)]
    made = weight.node(op, False, **attributes)
    with pytest.raises(Exception) as caught:
        make_session([made], weight.constants, ["y"], [("x", FLOAT, dims)]).run(None, {"x": x})
    return str(caught.value)


def test_what_does_not_fit_is_refused_with_the_shapes() -> None:
    matrix, filters = Weight((24, 17)), Weight((4, 3, 3, 3))
    assert "of x [2, 23] and a weight [24, 17]" in refused("MatMul", matrix, x_of(2, 23))
    assert "of x [24, 2] and a weight [24, 17]" in refused("LeftMatMul", matrix, x_of(24, 2))
    assert "of x [2, 24] and a weight" in refused("Gemm", matrix, x_of(2, 24), transB=1)
    assert "a convolution of x [1, 4, 9, 9]" in refused("Conv", filters, x_of(1, 4, 9, 9))
    assert "a convolution of x [1, 3, 2, 9]" in refused("Conv", filters, x_of(1, 3, 2, 9))
    assert "stride" in refused("Conv", filters, x_of(1, 3, 9, 9), strides=[0, 1])
    assert "'pads' is [1, 1]" in refused("Conv", filters, x_of(1, 3, 9, 9), pads=[1, 1])
    assert "AutoPad" in refused("Conv", filters, x_of(1, 3, 9, 9), auto_pad="AROUND")


def test_a_corrupt_blob_and_a_short_codebook_are_refused() -> None:
    weight = Weight((24, 17))
    weight.constants["blob"] = weight.constants["blob"].copy()
    weight.constants["blob"][-1] ^= 1
    assert "toolkit.DecodeMatMul node" in refused("MatMul", weight, x_of(2, 24))
    weight = Weight((24, 17), "lookup")
    weight.constants["codebook"] = weight.constants["codebook"][:120]
    assert "decoding tensor 1" in refused("MatMul", weight, x_of(2, 24))


def test_a_type_that_the_provider_has_no_operator_for_is_refused() -> None:
    weight = Weight((4, 3, 3, 3))
    weight.constants["scale"] = np.float16(0.1)
    nodes = [std("Cast", ["x"], ["half"], to=TensorProto.FLOAT16)]
    made = weight.node("Conv", False)
    made.input[0] = "half"
    with pytest.raises(Exception, match="the provider's Conv of element type 10"):
        make_session([*nodes, made], weight.constants, ["y"], [("x", FLOAT, [1, 3, 9, 9])])
    with pytest.raises(Exception, match="x has element type 1, the weight 10"):
        plain = weight.node("Conv", False)
        session = make_session([plain], weight.constants, ["y"], [("x", FLOAT, [1, 3, 9, 9])])
        session.run(None, {"x": x_of(1, 3, 9, 9)})


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("kind", ["plain", "zero points", "lookup"])
def test_function_bodies_compute_the_same(kind: str, opset: int) -> None:
    cases: list[tuple[str, tuple[int, ...], Array, bool, dict[str, Any]]] = [
        ("MatMul", (24, 17), x_of(2, 3, 24), False, {}),
        ("LeftMatMul", (17, 24), x_of(2, 24, 3), False, {}),
        ("Gemm", (17, 24), x_of(3, 24), False, {"transB": 1, "alpha": 0.5}),
        ("Gemm", (24, 17), x_of(3, 24), True, {}),
        ("Conv", (4, 3, 3, 3), x_of(1, 3, 8, 9), False, {"strides": [2, 1]}),
        ("Conv", (4, 3, 3, 3), x_of(1, 3, 8, 9), True, {"auto_pad": "SAME_UPPER"}),
    ]
    for op, shape, x, has_bias, settings in cases:
        weight = Weight(shape, kind)
        constants = dict(weight.constants)
        if has_bias:
            constants["bias"] = x_of(4 if op == "Conv" else 17)
        made = weight.node(op, has_bias, **settings)
        dims = [f"d{n}" for n in range(x.ndim)]
        proto = model([made], constants, ["y"], [("x", FLOAT, dims)], opset=opset)
        wanted = make_session([made], constants, ["y"], [("x", FLOAT, dims)]).run(None, {"x": x})[0]
        zeros = kind == "zero points"
        proto.functions.extend(function_bodies({made.op_type}, opset, zero_points=zeros))
        np.testing.assert_allclose(run_plain(proto, {"x": x}), wanted, rtol=1e-4, atol=1e-4)


def test_stream_mode_decodes_and_runs_in_one_node() -> None:
    compressed, plain = network()
    x = x_of(2, 3, 7, 7)
    wanted = plain_run(plain, {"x": x})[0]
    session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode="stream")
    np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=1e-5, atol=1e-5)
    graph_fuse.fuse(compressed)
    assert fuse_products(compressed, CPU_TYPES) == 3
    kinds = [made.op_type for made in compressed.graph.node]
    assert kinds == ["DecodeConv", "Flatten", "DecodeGemm", "Relu", "DecodeMatMulLookup"]
    assert list(compressed.graph.node[2].input) == ["f", "blob", "scales", "", "bias"]


def test_products_that_stay() -> None:
    compressed, _ = network()
    graph_fuse.fuse(compressed)
    whole = compressed.SerializeToString()

    def left(change: Any, types: Any = CPU_TYPES) -> int:
        proto = onnx.load_model_from_string(whole)
        change({made.output[0]: made for made in proto.graph.node}, proto.graph)
        return fuse_products(proto, types)

    assert left(lambda nodes, graph: None, frozenset()) == 0
    assert left(lambda nodes, graph: nodes["m"].output.__setitem__(0, "n")) == 2
    # Another reader, the graph's output included.
    assert left(lambda nodes, graph: graph.output.append(onnx.ValueInfoProto(name="g"))) == 2
    # A general product with the weight on the left, a weight of three dimensions.
    assert left(lambda nodes, graph: nodes["h"].input.__setitem__(slice(None), ["g", "f"])) == 2

    def deepen(nodes: Any, graph: Any) -> None:
        shape = next(a for a in nodes["m"].attribute if a.name == "shape")
        shape.ints[:] = [1, *shape.ints]

    assert left(deepen) == 2
    # Pads that ONNX Runtime has not.
    dilated = [onnx.helper.make_attribute("dilations", [2, 2]),
               onnx.helper.make_attribute("auto_pad", "SAME_UPPER")]  # fmt: skip
    assert left(lambda nodes, graph: nodes["c"].attribute.extend(dilated)) == 2


def test_a_weight_on_the_left_is_decoded_in_one_node() -> None:
    weight = Weight((17, 24), "lookup")
    decode = node("DecodeLookup", list(weight.constants), ["w"], **weight.attributes)
    nodes = [decode, std("MatMul", ["w", "x"], ["y"])]
    proto = model(nodes, weight.constants, ["y"], [("x", FLOAT, ["batch", 24, "columns"])])
    content = proto.SerializeToString()
    assert fuse_products(proto, CPU_TYPES) == 1
    assert [n.op_type for n in proto.graph.node] == ["DecodeLeftMatMulLookup"]
    session = InferenceSession(content, providers=CPU, mode="stream")
    for shape in ((2, 24, 5), (3, 24, 1)):
        np.testing.assert_allclose(
            session.run(None, {"x": x_of(*shape)})[0],
            weight.values @ x_of(*shape), rtol=1e-4, atol=1e-4
        )  # fmt: skip


def inner_graph(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return onnx.helper.make_graph(nodes, name, [], [onnx.ValueInfoProto(name=output)])


def branches_model(first: str = "w", second: str = "v") -> tuple[onnx.ModelProto, list[Weight]]:
    """An If whose branches multiply by a weight each, decoded around it: the first through another
    If."""
    weights = [Weight((24, 24), "zero points"), Weight((24, 24), "lookup", seed=5)]
    nodes, constants = [], {}
    for name, weight in zip(("w", "v"), weights, strict=True):
        held = {f"{name}_{key}": value for key, value in weight.constants.items()}
        op = "DecodeLookup" if weight.suffix else "DecodeDequantize"
        nodes.append(node(op, list(held), [name], **weight.attributes))
        constants |= held
    innermost = inner_graph("innermost", [std("MatMul", ["x", first], ["a"])], "a")
    other = inner_graph("other", [std("Neg", ["x"], ["n"])], "n")
    nested = std("If", ["c"], ["b"], then_branch=innermost, else_branch=other)
    nodes.append(
        std(
            "If",
            ["c"],
            ["y"],
            then_branch=inner_graph("then", [nested], "b"),
            else_branch=inner_graph("else", [std("MatMul", ["x", second], ["d"])], "d"),
        )  # fmt: skip
    )
    inputs = [("x", FLOAT, ["batch", 24]), ("c", TensorProto.BOOL, [])]
    return model(nodes, constants, ["y"], inputs), weights


def test_a_branch_decodes_the_weights_that_only_it_reads() -> None:
    proto, weights = branches_model()
    content = proto.SerializeToString()
    assert fuse_products(proto, CPU_TYPES) == 2
    assert [n.op_type for n in proto.graph.node] == ["If"]
    session = InferenceSession(content, providers=CPU, mode="stream")
    for condition, weight in zip((True, False), weights, strict=True):
        found = session.run(None, {"x": x_of(3, 24), "c": np.array(condition)})[0]
        np.testing.assert_allclose(found, x_of(3, 24) @ weight.values, rtol=1e-4, atol=1e-4)


def test_weights_of_branches_that_stay_around_them() -> None:
    """Where both read one, where the caller wants it, and where a name there is hidden."""
    both, _ = branches_model("w", "w")
    assert fuse_products(both, CPU_TYPES) == 0
    proto, _ = branches_model()
    assert fuse_products(proto, CUDA_TYPES, session=3, branches=False) == 0
    assert [n.op_type for n in proto.graph.node] == ["DecodeDequantize", "DecodeLookup", "If"]
    hidden, _ = branches_model()
    branch = next(a.g for a in hidden.graph.node[-1].attribute if a.name == "else_branch")
    branch.initializer.append(onnx.numpy_helper.from_array(np.zeros(2, np.uint16), "v_blob"))
    assert fuse_products(hidden, CPU_TYPES) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_a_loop_decodes_in_its_turns_only_what_is_its_own(inside: bool) -> None:
    weight = Weight((24, 24))
    decode = [node("DecodeDequantize", list(weight.constants), ["w"], **weight.attributes)]
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [
            *(decode if inside else []),
            std("MatMul", ["s", "w"], ["t"]),
            std("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("s", FLOAT, None),
        ],
        [value("on", TensorProto.BOOL, []), value("t", FLOAT, None)],
    )
    constants = weight.constants | {"turns": np.array(2, np.int64)}
    nodes = [*([] if inside else decode), std("Loop", ["turns", "", "x"], ["y"], body=body)]
    proto = model(nodes, constants, ["y"], [("x", FLOAT, ["batch", 24])])
    session = InferenceSession(proto.SerializeToString(), providers=CPU, mode="stream")
    found = session.run(None, {"x": x_of(3, 24)})[0]
    wanted = x_of(3, 24) @ weight.values @ weight.values
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    assert fuse_products(proto, CPU_TYPES) == int(inside)


def test_halves_are_decoded_in_a_node_of_their_own_on_the_cpu() -> None:
    weight = symbols((1, 24, 17), 3)
    blob = runtime.encode_wide([weight])
    nodes = [
        node("DecodeDequantize", ["blob", "scale"], ["w"], tensor=0, shape=[24, 17]),
        std("MatMul", ["x", "w"], ["y"]),
    ]
    inputs = [("x", TensorProto.FLOAT16, ["batch", 24])]
    proto = model(nodes, {"blob": blob, "scale": np.float16(0.01)}, ["y"], inputs)
    session = InferenceSession(proto.SerializeToString(), providers=CPU, mode="stream")
    x = x_of(3, 24).astype(np.float16)
    wanted = x.astype(np.float32) @ (weight[0] * np.float16(0.01)).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=1e-2, atol=1e-2)
    assert fuse_products(proto, CPU_TYPES) == 0
    assert fuse_products(proto, CUDA_TYPES) == 1


def test_threads_run_one_session_at_once() -> None:
    import threading

    compressed, plain = network()
    session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode="stream")
    x = x_of(2, 3, 7, 7)
    wanted, wrong = plain_run(plain, {"x": x})[0], []

    def work() -> None:
        for _ in range(30):
            found = session.run(None, {"x": x})[0]
            if not np.allclose(found, wanted, rtol=1e-5, atol=1e-5):
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def options_with(**entries: str) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    for name, value in entries.items():
        options.add_session_config_entry(f"toolkit.{name}", value)
    return options


def test_only_sessions_on_cuda_decode_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime import session

    given: list[tuple[int, bool, int]] = []

    def note(
        model: onnx.ModelProto,
        types: Any,
        number: int,
        *,
        ahead: bool,
        ahead_bytes: int,
        branches: bool,
    ) -> int:
        assert branches == (types == CPU_TYPES)
        given.append((number, ahead, ahead_bytes))
        return 0

    monkeypatch.setattr(session.graph_products, "fuse_products", note)
    content = network()[0].SerializeToString()
    for types in (CPU_TYPES, CUDA_TYPES):
        for options in (
            None,
            options_with(prefetch="0", prefetch_bytes="9"),
            options_with(prefetch_bytes="123"),
        ):
            session._plan(content, options, "stream", types)
    assert given[:3] == [(0, False, 0)] * 3
    assert 0 < given[3][0] < given[4][0]
    assert [entry[1:] for entry in given[3:]] == [(True, 0), (False, 0), (True, 123)]


@pytest.mark.parametrize("entry", ["many", "0", "-1", "1e6", str(1 << 63)])
def test_bytes_to_decode_ahead_are_a_number(entry: str) -> None:
    with pytest.raises(ValueError, match=r"toolkit\.prefetch_bytes is .*, expected a positive"):
        session_options.prefetch_bytes(options_with(prefetch_bytes=entry))


def test_places_are_numbered_in_the_outermost_graph() -> None:
    compressed, _ = network()
    graph_fuse.fuse(compressed)
    assert fuse_products(compressed, CUDA_TYPES, session=77, ahead=True, ahead_bytes=5) == 3
    named = ("session", "place", "ahead_bytes")
    found = [
        {a.name: a.i for a in made.attribute if a.name in named}
        for made in compressed.graph.node
        if made.domain == "toolkit"
    ]
    assert found == [{"session": 77, "place": place, "ahead_bytes": 5} for place in range(3)]
    x = x_of(2, 3, 7, 7)
    options = onnxruntime.SessionOptions()
    runtime.register(options)
    session = onnxruntime.InferenceSession(compressed.SerializeToString(), options, providers=CPU)
    assert session.run(None, {"x": x})[0].shape == (2, 6)
