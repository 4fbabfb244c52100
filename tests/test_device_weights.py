# SPDX-License-Identifier: Apache-2.0
"""Load mode that decodes on a device: what is chosen, how a session takes it, and what happens
where it cannot. The device is the CPU provider's here; the steps are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import runtime
from runtime import InferenceSession, device_weights, gpu, graph_fuse, graph_rewrite, session
from runtime.decoder_session import run_decoder
from runtime.decoding_device import CudaDevice
from runtime.device_weights import choose, decode_on
from runtime.errors import ModelError
from tests.decode_models import CPU, Array, model, node, plain_run, std, symbols
from tests.host_device import HostDevice
from tests.network_models import network

FLOAT = TensorProto.FLOAT
HERE = HostDevice()


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have load mode take the CPU provider for a device."""
    monkeypatch.setattr(session, "_unpack_device", lambda *_: HERE)


def x_of(batch: int = 2) -> Array:
    return np.random.default_rng(batch).normal(size=(batch, 3, 7, 7)).astype(np.float32)


def chosen(parts: graph_rewrite.Cut, names: list[str]) -> device_weights.Chosen:
    """What `choose` would return for these weights."""
    decoder = parts.decoder(names)
    graph_fuse.fuse(decoder)
    return device_weights.Chosen(names, decoder)


def no_layouts() -> onnxruntime.SessionOptions:
    """Options without what the CPU provider does to the filters of convolutions, and CUDA's not."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return options


def cut(proto: onnx.ModelProto) -> graph_rewrite.Cut:
    parts = graph_rewrite.cut(graph_rewrite.prepare(proto))
    assert parts is not None
    return parts


def square_model(
    body: list[onnx.NodeProto], count: int, more: dict[str, Array] | None = None
) -> onnx.ModelProto:
    """A model of weights w0, w1, ... [16, 16]."""
    blob = runtime.encode_wide([symbols((1, 16, 16), n) for n in range(count)])
    nodes = [
        node("DecodeDequantize", ["blob", "scale"], [f"w{n}"], tensor=n, shape=[16, 16])
        for n in range(count)
    ]
    constants = {"blob": blob, "scale": np.float32(0.02), **(more or {})}
    return model([*nodes, *body], constants, ["y"], [("x", FLOAT, ["batch", 16])])


def test_a_session_takes_weights_from_a_device(on_device: None) -> None:
    compressed, plain = network()
    wanted = plain_run(plain, {"x": x_of()})[0]
    session = InferenceSession(compressed.SerializeToString(), no_layouts(), providers=CPU)
    assert set(session.weights_on_device) == {"k", "g", "m"}
    for _ in range(2):
        found = session.run(None, {"x": x_of()})[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    session.set_providers(CPU)
    np.testing.assert_allclose(session.run(None, {"x": x_of()})[0], wanted, rtol=1e-5, atol=1e-5)


def test_values_are_those_of_the_host() -> None:
    compressed, plain = network()
    parts = cut(compressed)
    weights = decode_on(HERE, choose(parts))
    expected = {t.name: onnx.numpy_helper.to_array(t) for t in plain.graph.initializer}
    for name, value in weights.values.items():
        np.testing.assert_array_equal(value.numpy(), expected[name])
    assert [list(t.dims) for t in weights.describe()] == [
        list(expected[name].shape) for name in weights.values
    ]


def test_every_kind_of_weight_is_decoded() -> None:
    """Scales that nodes make, blocks, zero points, codebooks, float16, wide symbols; tensors of two
    blobs, large and small."""
    random = np.random.default_rng(3)
    wide = random.integers(-3000, 3000, (1, 24, 16)).astype(np.int16)
    narrow = [symbols((1, 16, 24), 1), symbols((1, 24, 40), 2), np.abs(symbols((1, 40, 16), 3))]
    constants = {
        "narrow": runtime.encode_wide(narrow),
        "wide": runtime.encode_wide([wide]),
        "table": random.uniform(0.001, 0.01, 5).astype(np.float32),
        "which": random.integers(0, 5, 24),
        "blocks": random.uniform(0.01, 0.02, (3, 40)).astype(np.float16),
        "zeros": random.integers(-3, 3, (3, 40)).astype(np.int8),
        "codebook": random.normal(size=128).astype(np.float16),
        "one": np.float32(0.0001),
    }
    nodes = [
        std("Gather", ["table", "which"], ["scale"]),
        node("DecodeDequantize", ["narrow", "scale"], ["a"], tensor=0, shape=[16, 24], axis=1),
        node(
            "DecodeDequantize", ["narrow", "blocks", "zeros"], ["b"],
            tensor=1, shape=[24, 40], axis=0, block_size=8,
        ),
        node("DecodeLookup", ["narrow", "codebook"], ["c"], tensor=2, shape=[40, 16], offset=0),
        node("DecodeDequantize", ["wide", "one"], ["d"], tensor=0, shape=[24, 16]),
        std("MatMul", ["x", "a"], ["xa"]),
        std("MatMul", ["xa", "d"], ["xd"]),
        std("Cast", ["xa"], ["xh"], to=TensorProto.FLOAT16),
        std("MatMul", ["xh", "b"], ["xb"]),
        std("MatMul", ["xb", "c"], ["xc"]),
        std("Cast", ["xc"], ["xf"], to=TensorProto.FLOAT),
        std("Add", ["xf", "xd"], ["y"]),
    ]  # fmt: skip
    proto = model(nodes, constants, ["y"], [("x", FLOAT, ["batch", 16])])
    parts = cut(proto)
    found_chosen = choose(parts)
    names = found_chosen.names
    assert sorted(names) == ["a", "b", "c", "d"]
    found = decode_on(HERE, found_chosen)
    everything = run_decoder(parts.decoder(names), "", onnxruntime.SessionOptions())
    for name, expected in zip(names, everything, strict=True):
        value = found.values[name]
        assert value.data_ptr() % 256 == 0
        assert value.numpy().dtype == expected.dtype
        np.testing.assert_array_equal(value.numpy(), expected)


def test_without_a_device_the_host_decodes() -> None:
    session = InferenceSession(network()[0].SerializeToString(), providers=CPU)
    assert session.weights_on_device == ()


def test_an_entry_asks_for_the_host(on_device: None) -> None:
    options = no_layouts()
    options.add_session_config_entry("toolkit.unpack", "host")
    session = InferenceSession(network()[0].SerializeToString(), options, providers=CPU)
    assert session.weights_on_device == ()


def test_weights_that_an_optimiser_wants_are_decoded_on_the_host(on_device: None) -> None:
    attention = [std("MatMul", ["x", f"w{n}"], [f"q{n}"]) for n in range(3)]
    ones = np.ones(16, np.float32)
    body = [
        *attention,
        std("Add", ["q0", "q1"], ["s"]),
        std("Add", ["s", "q2"], ["t"]),
        std("Transpose", ["w3"], ["turned"]),
        std("MatMul", ["t", "turned"], ["u"]),
        std("MatMul", ["u", "w4"], ["v"]),
        std("BatchNormalization", ["v", "ones", "ones", "ones", "ones"], ["b"]),
        std("MatMul", ["b", "w5"], ["y"]),
    ]
    content = square_model(body, 6, {"ones": ones}).SerializeToString()
    parts = cut(onnx.load_model_from_string(content))
    assert choose(parts).names == ["w0", "w1", "w2", "w5"]
    assert choose(parts, careful=True).names == ["w5"]
    mixed = InferenceSession(content, providers=CPU)
    assert mixed.weights_on_device == ("w0", "w1", "w2", "w5")
    plain = InferenceSession(content, providers=CPU, mode="stream")
    x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    np.testing.assert_allclose(
        mixed.run(None, {"x": x})[0], plain.run(None, {"x": x})[0], rtol=1e-4, atol=1e-4
    )


def test_constant_factors_behind_a_convolution_are_folded_on_the_host() -> None:
    filters = runtime.encode_wide([symbols((4, 9, 3), 1)])
    decode = node("DecodeDequantize", ["blob", "scale"], ["k"], tensor=0, shape=[4, 3, 3, 3])
    conv = std("Conv", ["x", "k"], ["c"])
    constants = {
        "blob": filters,
        "scale": np.float32(0.1),
        "factor": np.ones((4, 1, 1), np.float32),
    }
    for other, chosen in (("factor", []), ("c", ["k"])):
        body = [decode, conv, std("Mul", ["c", other], ["y"])]
        proto = model(body, constants, ["y"], [("x", FLOAT, [1, 3, 5, 5])])
        assert choose(cut(proto)).names == chosen


def test_an_optimiser_that_reads_a_weight_gets_no_other_values(
    on_device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were a weight chosen that is folded, the session would be made with the host's weights, and
    say so."""
    body = [std("Transpose", ["w0"], ["turned"]), std("MatMul", ["x", "turned"], ["y"])]
    proto = square_model(body, 1)
    whole = proto.SerializeToString()
    monkeypatch.setattr(graph_rewrite, "cut", _cut_before_transpose)
    monkeypatch.setattr(device_weights, "choose", lambda parts, *_, careful: chosen(parts, ["w0"]))
    with pytest.warns(RuntimeWarning, match="decoded on the host"):
        session = InferenceSession(whole, providers=CPU)
    assert session.weights_on_device == ()
    x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    monkeypatch.undo()
    stream = InferenceSession(whole, providers=CPU, mode="stream")
    np.testing.assert_allclose(
        session.run(None, {"x": x})[0], stream.run(None, {"x": x})[0], rtol=1e-4, atol=1e-4
    )


def test_a_second_attempt_is_careful(on_device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed, plain = network()
    without_filters = choose(cut(network()[0])).names[1:]
    choices = {False: ["k", *without_filters], True: without_filters}
    monkeypatch.setattr(
        device_weights, "choose", lambda parts, *_, careful: chosen(parts, choices[careful])
    )
    made = InferenceSession(compressed.SerializeToString(), providers=CPU)
    assert set(made.weights_on_device) == {"g", "m"}
    wanted = plain_run(plain, {"x": x_of()})[0]
    np.testing.assert_allclose(made.run(None, {"x": x_of()})[0], wanted, rtol=1e-5, atol=1e-5)


def test_a_session_that_cannot_take_them_gets_the_hosts(on_device: None) -> None:
    """The CPU provider lays out filters anew, for which it reads them."""
    compressed, plain = network()
    with pytest.warns(RuntimeWarning, match="decoded on the host"):
        made = InferenceSession(compressed.SerializeToString(), providers=CPU)
    assert made.weights_on_device == ()
    wanted = plain_run(plain, {"x": x_of()})[0]
    np.testing.assert_array_equal(made.run(None, {"x": x_of()})[0], wanted)


def _cut_before_transpose(proto: onnx.ModelProto) -> graph_rewrite.Cut:
    """The parts of a model whose Transpose of a weight stays in the rest."""
    root = graph_rewrite.scan(proto.graph, True, {"turned"})
    names = graph_rewrite._Names(root)
    weights: dict[str, Any] = {}
    graph_rewrite._take_weights(root, names, weights)
    parts = graph_rewrite.Cut(proto, names, weights)
    graph_rewrite._remove_decoded(root)
    graph_rewrite.drop_unused(root)
    return parts


def test_what_is_wrong_with_a_file_is_told_as_on_the_host(on_device: None) -> None:
    compressed, _ = network()
    blob = next(t for t in compressed.graph.initializer if t.name == "blob")
    words = onnx.numpy_helper.to_array(blob).copy()
    words[-1] ^= 1
    blob.CopyFrom(onnx.numpy_helper.from_array(words, "blob"))
    with pytest.raises(ModelError, match="blob"):
        InferenceSession(compressed.SerializeToString(), providers=CPU)


def test_a_device_that_cannot_decode_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = CudaDevice(number=99)
    monkeypatch.setattr(session, "_unpack_device", lambda *_: absent)
    with pytest.warns(RuntimeWarning, match="decoded on the host: the weights cannot be decoded"):
        made = InferenceSession(network()[0].SerializeToString(), providers=CPU)
    assert made.weights_on_device == ()


def test_files_with_external_data(on_device: None, tmp_path: Path) -> None:
    compressed, plain = network()
    path = tmp_path / "model.onnx"
    onnx.save(compressed, path, save_as_external_data=True, location="data", size_threshold=0)
    found = InferenceSession(path, no_layouts(), providers=CPU)
    assert len(found.weights_on_device) == 3
    wanted = plain_run(plain, {"x": x_of()})[0]
    np.testing.assert_allclose(found.run(None, {"x": x_of()})[0], wanted, rtol=1e-5, atol=1e-5)


def test_only_a_session_that_begins_with_cuda_has_a_device() -> None:
    assert session._unpack_device(["CPUExecutionProvider"], CPU, ()) is None
    assert session._unpack_device([], (), ()) is None
    if gpu.why_not():
        with pytest.warns(RuntimeWarning, match="decoded on the host"):
            assert session._unpack_device([CUDA], [CUDA], ()) is None
    else:
        given = [(CUDA, {"device_id": "0", "enable_cuda_graph": "1"})]
        device = session._unpack_device([CUDA], given, ())
        assert device == CudaDevice(0)


CUDA = "CUDAExecutionProvider"
