# SPDX-License-Identifier: Apache-2.0
"""The function bodies on stock ONNX Runtime, with no library registered, against the oracle."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.function_bodies import function_bodies
from runtime.oracle import decode_matrix
from runtime.wide import has_trellis
from tests.malformed_corpus import malformed_blobs
from tests.test_oracle_wide import golden_words
from tests.wide_reference_encoder import Tensor, encode_segment
from tests.wide_samples import Sample, laplace, laplace16, samples

OPSETS = [13, 18, 21, 23]
SAMPLES = list(samples())

Array = npt.NDArray[np.generic]


def stock_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def toolkit_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Array],
    opset: int,
    zero_points: bool = False,
    trellis: bool = False,
) -> onnx.ModelProto:
    """A model of these nodes over initializers; its output is "y"."""
    used = {node.op_type for node in nodes if node.domain}
    graph = helper.make_graph(
        nodes,
        "g",
        [],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in inputs.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("toolkit", 1)]
    functions = function_bodies(used, opset, zero_points=zero_points, trellis=trellis)
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


def run_nodes(
    nodes: list[onnx.NodeProto], inputs: dict[str, Array], opset: int, zero_points: bool = False
) -> Array:
    model = toolkit_model(nodes, inputs, opset, zero_points)
    (output,) = stock_session(model).run(None, {})
    return np.asarray(output)


def toolkit_node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], domain="toolkit", **attributes)


@functools.cache
def decoder(wide: bool, opset: int, trellis: bool = False) -> onnxruntime.InferenceSession:
    """A model whose input "b" is the blob."""
    kind = "DecodeWide16" if wide else "DecodeWide"
    model = toolkit_model([toolkit_node(kind, ["b"], "y")], {}, opset, trellis=trellis)
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.UINT16, ["n"]))
    return stock_session(model)


def decode(words: npt.NDArray[np.uint16], wide: bool, opset: int) -> Array:
    (output,) = decoder(wide, opset, has_trellis(words)).run(None, {"b": words})
    return np.asarray(output)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_sample_decodes_as_in_the_oracle(sample: Sample, opset: int) -> None:
    words = sample.encode()
    found = decode(words, sample.wide, opset)
    expected = decode_matrix(words)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("opset", OPSETS)
def test_golden_words_decode_as_in_the_oracle(opset: int) -> None:
    words = golden_words()
    np.testing.assert_array_equal(decode(words, False, opset), decode_matrix(words))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_16_bit_decoder_takes_segments_of_either_width(sample: Sample) -> None:
    words = sample.encode()
    np.testing.assert_array_equal(decode(words, True, 18), decode_matrix(words))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", ["contexts_raw", "contexts_nested", "wide_raw", "wide_nested"])
def test_blob_may_be_an_initializer(name: str, opset: int) -> None:
    sample = next(s for s in SAMPLES if s.name == name)
    kind = "DecodeWide16" if sample.wide else "DecodeWide"
    words = sample.encode()
    found = run_nodes([toolkit_node(kind, ["b"], "y")], {"b": words}, opset)
    np.testing.assert_array_equal(found, decode_matrix(words))


def test_model_may_have_several_segments() -> None:
    chosen = [s for s in SAMPLES if s.name in ("contexts_raw", "contexts_nested", "wide_nested")]
    nodes = [
        toolkit_node("DecodeWide16" if s.wide else "DecodeWide", [f"b{i}"], f"y{i}")
        for i, s in enumerate(chosen)
    ]
    blobs: dict[str, Array] = {f"b{i}": s.encode() for i, s in enumerate(chosen)}
    model = toolkit_model(nodes, blobs, 18)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=f"y{i}") for i in range(len(chosen)))
    found = stock_session(model).run(None, {})
    for array, sample in zip(found, chosen, strict=True):
        np.testing.assert_array_equal(array, decode_matrix(sample.encode()))


@pytest.mark.parametrize("opset", OPSETS)
def test_take_tensor_cuts_each_tensor(opset: int) -> None:
    sample = next(s for s in SAMPLES if s.name == "contexts_raw")
    nodes = [toolkit_node("DecodeWide", ["b"], "m")]
    lane = 0
    outputs = []
    for number, tensor in enumerate(sample.tensors):
        a, b, c = tensor.symbols.shape
        lanes = -(-a * b // tensor.rows_per_lane)
        steps = tensor.rows_per_lane * c
        name = f"t{number}"
        nodes.append(
            toolkit_node(
                "TakeTensor", ["m"], name, lane=lane, lanes=lanes, steps=steps, shape=[a, b, c]
            )
        )
        outputs.append(name)
        lane += lanes
    model = toolkit_model(nodes, {"b": sample.encode()}, opset)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    found = stock_session(model).run(None, {})
    for array, tensor in zip(found, sample.tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.symbols)


@pytest.mark.parametrize("opset", OPSETS)
def test_take_tensor_then_dequantize_linear(opset: int) -> None:
    symbols = laplace((6, 1, 20), 5)
    words = encode_segment([Tensor(symbols, rows_per_lane=4)])
    scale = np.linspace(0.01, 0.2, 6, dtype=np.float32)
    nodes = [
        toolkit_node("DecodeWide", ["b"], "m"),
        toolkit_node("TakeTensor", ["m"], "q", lane=0, lanes=2, steps=80, shape=[6, 4, 5]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], axis=0),
    ]
    found = run_nodes(nodes, {"b": words, "s": scale}, opset)
    expected = symbols.reshape(6, 4, 5).astype(np.float32) * scale[:, None, None]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("opset", OPSETS)
def test_take_range_cuts_a_stream(opset: int) -> None:
    stream = np.arange(40, dtype=np.int16)
    node = toolkit_node("TakeRange", ["b"], "y", first=7, shape=[3, 4])
    np.testing.assert_array_equal(
        run_nodes([node], {"b": stream}, opset), stream[7:19].reshape(3, 4)
    )


def wide_segment() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int16]]:
    """A segment whose second tensor, 12 x 10, is the one that the fused decoders are asked for."""
    symbols = laplace16((12, 1, 10), 600, 8)
    first = Tensor(laplace16((5, 2, 4), 3, 9), rows_per_lane=2)
    return encode_segment([first, Tensor(symbols, rows_per_lane=5, low_bits=4)], wide=True), symbols


@pytest.mark.parametrize("opset", [13, 23])
@pytest.mark.parametrize("kind", ["tensor", "scalar", "axis_0", "axis_1", "axis_last", "block"])
@pytest.mark.parametrize("zero_points", [False, True])
def test_decode_dequantize(opset: int, kind: str, zero_points: bool) -> None:
    words, symbols = wide_segment()
    random = np.random.default_rng(1)
    shape = {"tensor": (1,), "scalar": (), "axis_0": (12,), "axis_1": (5,)}.get(kind, (2,))
    attributes: dict[str, Any] = {"axis": {"axis_0": 0, "axis_last": -1}.get(kind, 1)}
    full: tuple[int, ...] = {"axis_0": (12, 1, 1), "axis_1": (1, 5, 1)}.get(kind, shape)
    if kind == "block":
        shape, full = (12, 3, 2), (12, 3, 2)
        attributes["block_size"] = 2
    scale = random.uniform(0.01, 1, shape).astype(np.float32)
    zero = random.integers(-9, 9, shape).astype(np.int16)
    inputs: dict[str, Array] = {"b": words, "s": scale}
    if zero_points:
        inputs["z"] = zero
    node = toolkit_node(
        "DecodeDequantize", list(inputs), "y", tensor=1, shape=[12, 5, 2], **attributes
    )
    found = run_nodes([node], inputs, opset, zero_points)
    scale, zero = scale.reshape(full), zero.reshape(full)
    if kind == "block":
        scale = np.repeat(scale, 2, axis=1)[:, :5]
        zero = np.repeat(zero, 2, axis=1)[:, :5]
    values = symbols.reshape(12, 5, 2).astype(np.int32) - (zero if zero_points else 0)
    np.testing.assert_array_equal(found, values.astype(np.float32) * scale)


@pytest.mark.parametrize("opset", [15, 18, 23])
def test_decode_dequantize_to_half(opset: int) -> None:
    words, symbols = wide_segment()
    scale = np.array([0.0031], np.float16)
    node = toolkit_node("DecodeDequantize", ["b", "s"], "y", tensor=1, shape=[120])
    found = run_nodes([node], {"b": words, "s": scale}, opset)
    expected = (symbols.reshape(-1).astype(np.float32) * np.float32(scale)).astype(np.float16)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_decode_lookup(opset: int, kind: type) -> None:
    symbols = np.random.default_rng(2).integers(-4, 4, (6, 1, 10)).astype(np.int8)
    words = encode_segment([Tensor(laplace((2, 2, 2), 1)), Tensor(symbols, rows_per_lane=3)])
    codebook: Array = np.linspace(-1, 1, 8).astype(kind)
    node = toolkit_node("DecodeLookup", ["b", "c"], "y", tensor=1, shape=[10, 6], offset=4)
    found = run_nodes([node], {"b": words, "c": codebook}, opset)
    np.testing.assert_array_equal(found, codebook[symbols.reshape(10, 6) + 4])


@pytest.mark.parametrize("opset", [13, 23])
@pytest.mark.parametrize("wide", [False, True])
def test_decode_tensor(opset: int, wide: bool) -> None:
    kind = np.int16 if wide else np.int8
    symbols = np.random.default_rng(2).integers(-4, 4, (6, 1, 10)).astype(kind)
    first = laplace((2, 2, 2), 1).astype(kind)
    words = encode_segment([Tensor(first), Tensor(symbols, rows_per_lane=3)])
    name = "DecodeTensor16" if wide else "DecodeTensor"
    node = toolkit_node(name, ["b"], "y", tensor=1, shape=[11, 5])
    found = run_nodes([node], {"b": words}, opset)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, symbols.reshape(-1)[:55].reshape(11, 5))


def test_opset_below_13_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="opset 13 or more, found 12"):
        function_bodies({"DecodeWide"}, 12)
    with pytest.raises(ValueError, match="DecodeNothing"):
        function_bodies({"DecodeNothing"}, 13)


@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize(("name", "limit"), [("DecodeWide", 11000), ("DecodeWide16", 12500)])
def test_bodies_are_small(name: str, limit: int, trellis: bool) -> None:
    bodies = function_bodies({name, "TakeTensor"}, 21, trellis=trellis)
    assert sum(len(body.SerializeToString()) for body in bodies) < limit + 800 * trellis


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_the_body_that_knows_trellis_sets_decodes_all_others(sample: Sample) -> None:
    words = sample.encode()
    (found,) = decoder(sample.wide, 18, True).run(None, {"b": words})
    np.testing.assert_array_equal(found, decode_matrix(words))


def decode_corrupted() -> None:
    """Run the malformed corpus and random damage; wrong symbols and Python errors are both fine."""
    cases = [(words, "wide" in name or "exception" in name) for name, words, _ in malformed_blobs()]
    random = np.random.default_rng(3)
    for sample in SAMPLES:
        good = sample.encode()
        for _ in range(6):
            words = good.copy()
            words[random.integers(6, words.size)] ^= 1 << int(random.integers(16))
            cases.append((words, sample.wide))
        words = good.copy()
        words[-words.size // 3 :] = random.integers(0, 65536, words[-words.size // 3 :].size)
        cases.append((words, sample.wide))
    refused = 0
    for words, wide in cases:
        try:
            decode(words, wide, 18)
        except Exception:  # ONNX Runtime's errors have no common base
            refused += 1
    print(f"{len(cases)} blobs, {refused} refused")


def test_corrupted_blobs_do_not_crash_the_process() -> None:
    root = Path(__file__).parent.parent
    command = "from tests.test_function_bodies import decode_corrupted; decode_corrupted()"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=root, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "blobs" in done.stdout
