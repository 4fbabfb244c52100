# SPDX-License-Identifier: Apache-2.0
"""`runtime.InferenceSession`: the surface of onnxruntime's class, options, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

import runtime
from runtime import InferenceSession, session_options
from tests.decode_models import (
    CPU,
    MODES,
    Array,
    check_all,
    model,
    node,
    plain_run,
    sample,
    std,
    symbols,
    take,
    two_matmuls,
    x_of,
)


@pytest.mark.parametrize("seed", range(3))
def test_both_modes_run_as_the_plain_model(seed: int) -> None:
    compressed, plain = two_matmuls(seed)
    check_all(compressed, plain, {"x": x_of()})


def test_decoded_weights_are_the_same_in_both_modes() -> None:
    nodes, constants, values = sample()
    # The weights themselves are outputs; Identity, since load mode makes them initializers.
    nodes += [std("Identity", ["w0"], ["out0"]), std("Identity", ["w1"], ["out1"])]
    compressed = model(nodes, constants, ["out0", "out1"])
    for mode in MODES:
        session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
        for found, wanted in zip(session.run(None, {}), values.values(), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_weight_may_itself_be_an_output() -> None:
    nodes, constants, values = sample()
    nodes.append(std("MatMul", ["x", "w0"], ["y"]))
    compressed = model(nodes, constants, ["w0", "y"], [("x", TensorProto.FLOAT, ["batch", 24])])
    for mode in MODES:
        session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
        np.testing.assert_array_equal(session.run(["w0"], {"x": x_of()})[0], values["w0"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [str, Path, bytes])
def test_path_and_bytes(kind: Any, mode: Any, tmp_path: Path) -> None:
    compressed, plain = two_matmuls()
    path = tmp_path / "model.onnx"
    path.write_bytes(compressed.SerializeToString())
    source = path.read_bytes() if kind is bytes else kind(path)
    session = InferenceSession(source, providers=CPU, mode=mode)
    expected = plain_run(plain, {"x": x_of()})[0]
    np.testing.assert_allclose(session.run(None, {"x": x_of()})[0], expected, rtol=1e-5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("mode", MODES)
def test_external_data(mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, constants, values = sample()
    nodes += [std("MatMul", ["x", "w0"], ["y"]), std("Add", ["y", "bias"], ["z"])]
    constants["bias"] = np.arange(16, dtype=np.float32)
    compressed = model(nodes, constants, ["z"], [("x", TensorProto.FLOAT, ["batch", 24])])
    path = tmp_path / "model.onnx"
    onnx.save_model(
        compressed, path, save_as_external_data=True, location="data.bin", size_threshold=0
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    session = InferenceSession(path, providers=CPU, mode=mode)
    found = session.run(None, {"x": x_of()})[0]
    np.testing.assert_allclose(
        found, x_of() @ values["w0"] + constants["bias"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_model_without_toolkit_ops_runs_as_plain(mode: Any, tmp_path: Path) -> None:
    _, plain = two_matmuls()
    del plain.opset_import[1]
    path = tmp_path / "plain.onnx"
    path.write_bytes(plain.SerializeToString())
    expected = plain_run(plain, {"x": x_of()})[0]
    session = InferenceSession(path, providers=CPU, mode=mode)
    np.testing.assert_array_equal(session.run(None, {"x": x_of()})[0], expected)


@pytest.mark.parametrize("mode", MODES)
def test_options_of_the_caller_are_left_as_they_are(mode: Any) -> None:
    compressed, plain = two_matmuls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    expected = plain_run(plain, {"x": x_of()})[0]
    for _ in range(2):  # the same object serves again
        session = InferenceSession(compressed.SerializeToString(), options, CPU, mode=mode)
        np.testing.assert_allclose(session.run(None, {"x": x_of()})[0], expected, rtol=1e-5)
        assert session.get_session_options().intra_op_num_threads == 1
        assert session.get_session_options().log_severity_level == 3
    for key in ("toolkit.threads", "toolkit.registered"):
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(key)
    runtime.register(options)  # possible only if the library was not registered with them
    onnxruntime.InferenceSession(compressed.SerializeToString(), options, CPU)


@pytest.mark.parametrize("mode", MODES)
def test_options_that_cannot_be_copied_are_used_themselves(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_options, "can_copy", lambda options, proto: False)
    nodes, constants, values = sample()
    nodes += [std("MatMul", ["x", "w0"], ["y"]), std("Add", ["y", "bias"], ["z"])]
    constants["bias"] = np.arange(16, dtype=np.float32)
    compressed = model(nodes, constants, ["z"], [("x", TensorProto.FLOAT, ["batch", 24])])
    path = tmp_path / "model.onnx"
    onnx.save_model(
        compressed, path, save_as_external_data=True, location="data.bin", size_threshold=0
    )
    options = onnxruntime.SessionOptions()
    expected = x_of() @ values["w0"] + constants["bias"]
    for _ in range(2):
        session = InferenceSession(path, options, CPU, mode=mode)
        found = session.run(None, {"x": x_of()})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_custom_ops_of_others_are_noticed() -> None:
    compressed, _ = two_matmuls()
    options = onnxruntime.SessionOptions()
    assert session_options.can_copy(options, compressed)
    compressed.opset_import.add(domain="someone.else", version=1)
    assert session_options.can_copy(options, compressed)
    compressed.graph.node[-1].domain = "someone.else"
    assert not session_options.can_copy(options, compressed)


@pytest.mark.parametrize("mode", MODES)
def test_options_with_the_library_registered_already(mode: Any) -> None:
    compressed, plain = two_matmuls()
    options = onnxruntime.SessionOptions()
    runtime.register(options)
    session = InferenceSession(compressed.SerializeToString(), options, CPU, mode=mode)
    expected = plain_run(plain, {"x": x_of()})[0]
    np.testing.assert_allclose(session.run(None, {"x": x_of()})[0], expected, rtol=1e-5)


def test_the_surface_is_that_of_onnxruntime() -> None:
    compressed, plain = two_matmuls()
    session = InferenceSession(compressed.SerializeToString(), providers=CPU)
    reference = onnxruntime.InferenceSession(plain.SerializeToString(), providers=CPU)
    assert isinstance(session, onnxruntime.InferenceSession)
    for found, wanted in (
        (session.get_inputs(), reference.get_inputs()),
        (session.get_outputs(), reference.get_outputs()),
    ):
        assert [(v.name, v.type, v.shape) for v in found] == [
            (v.name, v.type, v.shape) for v in wanted
        ]
    assert session.get_providers() == CPU
    assert session.get_overridable_initializers() == []
    assert session.get_modelmeta().graph_name == "graph"
    expected = reference.run(["z"], {"x": x_of()})[0]
    binding = session.io_binding()
    binding.bind_cpu_input("x", x_of())
    binding.bind_output("z")
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], expected)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(x_of())
    outputs = session.run_with_ort_values(["z"], {"x": value})
    np.testing.assert_array_equal(outputs[0].numpy(), expected)


@pytest.mark.parametrize("mode", MODES)
def test_set_providers_makes_the_session_anew(mode: Any) -> None:
    compressed, plain = two_matmuls()
    session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
    session.set_providers(CPU)
    expected = plain_run(plain, {"x": x_of()})[0]
    np.testing.assert_allclose(session.run(None, {"x": x_of()})[0], expected, rtol=1e-5)


def test_a_provider_that_is_not_active_is_named() -> None:
    compressed, plain = two_matmuls()
    for proto in (compressed, plain):
        with pytest.raises(runtime.ProviderError, match="NoSuchExecutionProvider"):
            InferenceSession(proto.SerializeToString(), providers=["NoSuchExecutionProvider", *CPU])


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'fast'"):
        InferenceSession(b"", mode="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_a_damaged_blob_is_refused_at_session_creation(mode: Any) -> None:
    compressed, _ = two_matmuls()
    for tensor in compressed.graph.initializer:
        if tensor.name == "blob":
            words = numpy_helper.to_array(tensor).copy()
            words[words.size // 2] ^= 1
            tensor.CopyFrom(numpy_helper.from_array(words, "blob"))
    with pytest.raises(runtime.ModelError, match="'blob'.*refused"):
        InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)


def test_weights_need_not_outlive_the_making_of_the_session() -> None:
    compressed, plain = two_matmuls()
    session = InferenceSession(compressed.SerializeToString(), providers=CPU)
    noise = [np.random.default_rng(i).random((24, 16)).astype(np.float32) for i in range(200)]
    expected = plain_run(plain, {"x": x_of()})[0]
    np.testing.assert_array_equal(session.run(None, {"x": x_of()})[0], expected)
    assert len(noise) == 200


def test_half_precision_and_lossless_weights() -> None:
    quantised = symbols((1, 24, 16), 5)
    blob = runtime.encode_wide([quantised])
    scale = np.random.default_rng(5).uniform(0.01, 0.1, 16).astype(np.float16)
    pattern = np.random.default_rng(6).normal(size=(24, 16)).astype(np.float32).view(np.uint32)
    rotated = (pattern << np.uint32(1)) | (pattern >> np.uint32(31))
    planes = [(rotated >> np.uint32(shift)).astype(np.uint8) for shift in (24, 16, 8, 0)]
    constants: dict[str, Array] = {"blob": blob, "scale": scale}
    constants |= {f"p{i}": plane for i, plane in enumerate(planes)}
    constants["p0"] = (planes[0] ^ np.uint8(128)).view(np.int8)
    nodes = [
        node("DecodeWide", ["blob"], ["s"]),
        take(blob, 0, "s", "q", (24, 16)),
        std("DequantizeLinear", ["q", "scale"], ["h"], axis=1),
        node("JoinFloat", ["p0", "p1", "p2", "p3"], ["f"], to=TensorProto.FLOAT),
        std("Identity", ["h"], ["half"]),
        std("Identity", ["f"], ["full"]),
    ]
    compressed = model(nodes, constants, ["half", "full"])
    for mode in MODES:
        session = InferenceSession(compressed.SerializeToString(), providers=CPU, mode=mode)
        half, full = session.run(None, {})
        wanted = (quantised[0].astype(np.float32) * scale.astype(np.float32)).astype(np.float16)
        np.testing.assert_array_equal(half, wanted)
        np.testing.assert_array_equal(full.view(np.uint32), pattern)
