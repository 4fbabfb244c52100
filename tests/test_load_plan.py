# SPDX-License-Identifier: Apache-2.0
"""The library's load mode gives the very graph and weights that `graph_rewrite` and ONNX Runtime
give, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtime
from runtime import graph_rewrite
from runtime.decoder_session import run_decoder
from runtime.load_plan import load_plainly
from runtime.planes import split_planes, to_symbols
from runtime.small import encode_small
from tests.chain_models import CHAINS, SHAPE, scales, source_nodes, with_reader
from tests.decode_models import Array, model, node, sample, std, symbols, take, two_matmuls

LEFT_TO_OTHERS = {
    "multiplied along two axes",
    "multiplied behind zero points",
    "transposed and reshaped",
    "integers",
}


def expected_parts(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Array]]:
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    rest = graph_rewrite.prepare(rest)
    parts = graph_rewrite.cut(rest)
    assert parts is not None
    arrays = run_decoder(parts.decoder(), "", onnxruntime.SessionOptions())
    return rest, dict(zip(parts.weights, arrays, strict=True))


def check(proto: onnx.ModelProto, inside_bytes: int = 0, threads: int = 1) -> None:
    """Compares what the library makes of a model."""
    loaded = load_plainly(proto.SerializeToString(), inside_bytes, threads)
    assert loaded is not None
    rest = onnx.load_model_from_string(loaded.model)
    expected, weights = expected_parts(proto)
    assert loaded.weights.keys() == {k for k, v in weights.items() if v.nbytes > inside_bytes}
    tensors = {tensor.name: tensor for tensor in rest.graph.initializer}
    for name, wanted in weights.items():
        tensor = tensors[name]
        rest.graph.initializer.remove(tensor)
        found = loaded.weights.get(name)
        if found is None:
            found = numpy_helper.to_array(tensor)
        else:
            assert tensor.data_location == TensorProto.EXTERNAL
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["length"] == str(wanted.nbytes)
            assert found.ctypes.data % 64 == 0
        assert found.dtype == wanted.dtype and found.shape == wanted.shape == tuple(tensor.dims)
        assert found.tobytes() == wanted.tobytes()
    assert rest == expected


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("source", ["tensor", "range"])
def test_chains(chain: str, dtype: Any, source: str) -> None:
    nodes, constants = source_nodes(dtype, source)
    more, further = CHAINS[chain](dtype)
    proto = with_reader([*nodes, *more], {**constants, **further})
    if chain in LEFT_TO_OTHERS:
        assert load_plainly(proto.SerializeToString(), 0, 1) is None
        return
    for inside_bytes, threads in ((0, 1), (1 << 20, 0)):
        check(proto, inside_bytes, threads)


@pytest.mark.parametrize("coder", ["Adaptive", "Huffman", "Fixed"])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("shape", [[240], [], [5, 48]])
def test_streams(coder: Any, narrow: bool, shape: list[int]) -> None:
    blob = encode_small(symbols((300,), 12, 90.0, np.int16), coder.lower())
    nodes = [node(f"Decode{coder}", ["blob"], ["s"])]
    if narrow:
        nodes.append(std("Cast", ["s"], ["s8"], to=TensorProto.INT8))
    nodes.append(node("TakeRange", [nodes[-1].output[0]], ["q"], first=7, shape=shape))
    nodes.append(std("DequantizeLinear", ["q", "scale"], ["w"]))
    check(with_reader(nodes, {"blob": blob, "scale": scales()}))


@pytest.mark.parametrize("op", ["DecodeWide", "DecodeWide16"])
def test_symbols_cast_to_int8_wrap(op: str) -> None:
    dtype = np.int8 if op == "DecodeWide" else np.int16
    blob = runtime.encode_wide([symbols((1, 24, 16), 3, 90.0, dtype)])
    nodes = [
        node(op, ["blob"], ["s"]),
        take(blob, 0, "s", "q", [24, 16]),
        std("Cast", ["q"], ["c"], to=TensorProto.INT8),
    ]
    check(with_reader(nodes, {"blob": blob}))
    dequantised = std("DequantizeLinear", ["c", "scale"], ["w"])
    check(with_reader([*nodes, dequantised], {"blob": blob, "scale": scales()}))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("stored", ["tensor", "range"])
def test_lossless_planes(dtype: Any, stored: str) -> None:
    first, *others = split_planes(np.random.default_rng(3).normal(size=(12, 9)).astype(dtype))
    if stored == "tensor":
        blob = runtime.encode_wide([to_symbols(first)[None]])
        nodes = [node("DecodeWide", ["blob"], ["s"]), take(blob, 0, "s", "q", [12, 9])]
    else:
        blob = encode_small(to_symbols(first))
        coder = {2: "Adaptive", 3: "Huffman", 4: "Fixed"}[int(blob[1] >> 8)]
        nodes = [
            node(f"Decode{coder}", ["blob"], ["s"]),
            std("Cast", ["s"], ["c"], to=TensorProto.INT8),
            node("TakeRange", ["c"], ["q"], first=0, shape=[12, 9]),
        ]
    constants = {"blob": blob} | {f"p{i}": plane for i, plane in enumerate(others)}
    planes = ["q", *list(constants)[1:]]
    if dtype == np.float32:
        nodes.append(node("JoinFloat", planes, ["w"], to=TensorProto.FLOAT))
        check(with_reader(nodes, constants))
        return
    for to in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        check(with_reader([*nodes, node("JoinHalf", planes, ["w"], to=to)], constants))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_several_threads_and_many_tensors(threads: int) -> None:
    tensors = [symbols((1, 300, 700 + 9 * i), i) for i in range(4)]
    blob = runtime.encode_wide(tensors)
    nodes = [node("DecodeWide", ["blob"], ["s"])]
    for i, tensor in enumerate(tensors):
        nodes.append(take(blob, i, "s", f"q{i}", list(tensor.shape)))
        nodes.append(std("DequantizeLinear", [f"q{i}", "scale"], [f"w{i}"]))
    readers = [std("Expand", [f"w{i}", "size"], [f"y{i}"]) for i in range(len(tensors))]
    proto = model(
        [*nodes, *readers],
        {"blob": blob, "scale": scales()},
        [reader.output[0] for reader in readers],
        [("size", TensorProto.INT64, ["rank"])],
    )
    check(proto, threads=threads)


def test_the_rest_keeps_what_is_read_and_nothing_else() -> None:
    proto, _ = two_matmuls()
    constants: dict[str, Array] = {"unused": np.ones(3, np.float32), "b": np.ones(1, np.float32)}
    for name, value in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    proto.graph.node.append(std("Add", ["z", "b"], ["end"]))
    proto.graph.node.append(std("Neg", ["unused"], ["nobody"]))
    proto.graph.output[0].name = "end"
    for name in ("w0", "z"):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, 1, None))
    proto.metadata_props.add(key="author", value="someone")
    proto.graph.doc_string = "kept"
    check(proto)
    loaded = load_plainly(proto.SerializeToString(), 0, 1)
    assert loaded is not None
    rest = onnx.load_model_from_string(loaded.model)
    assert {tensor.name for tensor in rest.graph.initializer} == {"w0", "w1", "b"}
    assert [value.name for value in rest.graph.value_info] == ["z"]
    assert all(entry.domain == "" for entry in rest.opset_import)


def test_functions_of_the_toolkit_are_dropped_and_others_kept() -> None:
    proto, _ = two_matmuls()
    for domain, name in (("toolkit", "DecodeWide"), ("toolkit", "WideHead"), ("other", "Twice")):
        body = [std("Add", ["a", "a"], ["b"])]
        imports = [helper.make_opsetid("", 21)]
        proto.functions.append(helper.make_function(domain, name, ["a"], ["b"], body, imports))
    check(proto)


def test_external_data_of_the_rest() -> None:
    proto, _ = two_matmuls()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "b"))
    proto.graph.node.append(std("Add", ["z", "b"], ["end"]))
    proto.graph.output[0].name = "end"
    for elsewhere in (False, True):
        if elsewhere:
            tensor = proto.graph.initializer[-1]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="b.bin")
        check(proto)
        loaded = load_plainly(proto.SerializeToString(), 0, 1)
        assert loaded is not None and loaded.needs_folder == elsewhere


@pytest.mark.parametrize("ir_version", [3, 10])
def test_constants_that_the_caller_may_override(ir_version: int) -> None:
    proto, _ = two_matmuls()
    proto.ir_version = ir_version
    proto.graph.input.append(helper.make_tensor_value_info("scale", 1, [16]))
    if ir_version == 3:
        check(proto)
    else:  # then the weight is not constant
        assert load_plainly(proto.SerializeToString(), 0, 1) is None


def with_function_of_toolkit_ops(proto: onnx.ModelProto) -> None:
    body = [node("DecodeWide", ["a"], ["b"])]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("toolkit", 1)]
    proto.functions.append(helper.make_function("other", "Decode", ["a"], ["b"], body, imports))


def with_subgraph(proto: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "g", [], [onnx.ValueInfoProto(name="z")])
    proto.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    choice = std("If", ["flag"], ["end"], then_branch=branch, else_branch=branch)
    proto.graph.node.append(choice)


def with_weight_as_output(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(onnx.ValueInfoProto(name="w0"))


def with_foreign_op(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].domain = "someone.else"


def with_dequantised_activation(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("q", TensorProto.INT8, [3, 24]))
    proto.graph.node.insert(0, std("DequantizeLinear", ["q", "scale"], ["x8"]))
    proto.graph.node[-1].input[0] = "x8"


def with_sparse_initializer(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.add(dims=[4])


def with_other_op_of_the_toolkit(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(node("Unheard", ["z"], ["end"]))


def with_unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node.insert(4, std("Softmax", ["w0"], ["w0s"]))
    proto.graph.node[-1].input[1] = "w0s"


def with_two_values_of_a_name(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def with_typed_data(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name == "scale":
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor("scale", 1, values.shape, values))


def with_external_blob(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name == "blob":
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="blob.bin")


def with_damaged_blob(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name == "blob":
            tensor.raw_data = tensor.raw_data[:-1] + bytes([tensor.raw_data[-1] ^ 1])


def with_too_large_a_tensor(proto: onnx.ModelProto) -> None:
    for made in proto.graph.node:
        for attribute in made.attribute:
            if attribute.name == "shape":
                attribute.ints[:] = [2**15, 2**15]


CHANGES = [
    with_function_of_toolkit_ops,
    with_subgraph,
    with_weight_as_output,
    with_foreign_op,
    with_dequantised_activation,
    with_sparse_initializer,
    with_other_op_of_the_toolkit,
    with_unknown_operator,
    with_two_values_of_a_name,
    with_typed_data,
    with_external_blob,
    with_damaged_blob,
    with_too_large_a_tensor,
]


@pytest.mark.parametrize("change", CHANGES)
def test_left_to_others(change: Any) -> None:
    proto, _ = two_matmuls()
    assert load_plainly(proto.SerializeToString(), 0, 1) is not None
    change(proto)
    assert load_plainly(proto.SerializeToString(), 0, 1) is None


def test_models_without_weights_to_decode() -> None:
    nodes, constants, _ = sample()
    proto = model([*nodes, std("Neg", ["x"], ["y"])], constants, ["y"], [("x", 1, [3])])
    for content in (b"", b"toolkit", proto.SerializeToString()):
        assert load_plainly(content or b"\0", 0, 1) is None


def test_damaged_models_do_no_harm() -> None:
    content = two_matmuls()[0].SerializeToString()
    random = np.random.default_rng(5)
    for size in random.integers(1, len(content), 100):
        assert load_plainly(content[:size], 0, 1) is None
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(int(random.integers(1, 4))):
            changed[int(random.integers(len(content)))] = int(random.integers(256))
        loaded = load_plainly(bytes(changed), 0, 1)
        assert loaded is None or len(loaded.model) < len(content)


def test_a_session_made_of_it_says_the_same() -> None:
    proto = with_reader(*_small_source())
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "nobody"))
    sessions = [
        runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]),
        runtime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"], mode="stream"
        ),
    ]
    feeds = {"size": np.array(SHAPE)}
    first, second = (session.run(None, feeds)[0] for session in sessions)
    np.testing.assert_array_equal(first, second)


def _small_source() -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    nodes, constants = source_nodes(np.int8, "range")
    more, further = CHAINS["scales along axis 0"](np.int8)
    return [*nodes, *more], {**constants, **further}
