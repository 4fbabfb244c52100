# SPDX-License-Identifier: Apache-2.0
"""Reading: every form a model file comes in, and one clear line for every bad one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from passes import ModelError, read_model, select_weights
from passes.model_proto import announced_bytes
from tests.passes_models import network, normal, proto_of, run, saved

OPSET_9 = '< ir_version: 4, opset_import: ["" : 9] >'
X = {"x": normal(2, 8, 10, 10, seed=9)}

OLD = """
< ir_version: 3, opset_import: ["" : {opset}] >
old (float[1,4,8,8] x, float[6,4,3,3] w, float[6] s, float[6] b, float[6] m, float[6] v)
  => (float[1,6] y) {{
  c = Conv (x, w)
  n = BatchNormalization (c, s, b, m, v)
  k = Clip <min = 0.0, max = 6.0> (n)
  p = GlobalMaxPool (k)
  q = Squeeze <axes = [2, 3]> (p)
  y = Softmax <axis = 1> (q)
}}
"""
OLD_TENSORS = {
    "w": normal(6, 4, 3, 3),
    "s": normal(6, seed=1),
    "b": normal(6, seed=2),
    "m": normal(6, seed=3),
    "v": np.abs(normal(6, seed=4)) + 1,
}


def test_reads_a_model_and_its_size(tmp_path: Path) -> None:
    path = saved(network(), tmp_path / "m.onnx")
    loaded = read_model(path)
    assert loaded.num_bytes == path.stat().st_size and loaded.notes == ()
    assert [w.name for w in select_weights(loaded.model)] == [
        "conv_w",
        "conv_b",
        "gemm_w",
        "gemm_b",
        "matmul_w",
    ]


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12])
def test_old_opsets_compute_the_same(tmp_path: Path, opset: int) -> None:
    tensors = dict(OLD_TENSORS, w=normal(6, 4, 3, 3, seed=5))
    text = OLD.format(opset=opset)
    if opset >= 11:  # Clip's bounds became inputs
        text = text.replace("Clip <min = 0.0, max = 6.0> (n)", "Relu (n)")
    proto = proto_of(text, tensors)
    loaded = read_model(saved(proto, tmp_path / "old.onnx"))
    assert loaded.model.opset_imports[""] == 13 and loaded.model.ir_version >= 8
    assert [value.name for value in loaded.model.graph.inputs] == ["x"]
    assert any(f"opset {opset} to 13" in note for note in loaded.notes)
    inputs = {"x": normal(1, 4, 8, 8, seed=7)}
    np.testing.assert_allclose(run(loaded.model, inputs)["y"], run(proto, inputs)["y"], atol=1e-6)


def test_conversion_keeps_large_tensors_bit_for_bit(tmp_path: Path) -> None:
    weight = normal(64, 64, dtype="float16")
    text = OPSET_9 + "g (float16[1,64] x) => (float16[1,64] y) { y = MatMul(x, w) }"
    loaded = read_model(saved(proto_of(text, {"w": weight}), tmp_path / "m.onnx"))
    [found] = select_weights(loaded.model)
    assert found.array().dtype == np.float16 and np.array_equal(found.array(), weight)


def test_opset_below_7_is_refused(tmp_path: Path) -> None:
    path = saved(proto_of(OLD.format(opset=6), OLD_TENSORS), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="opset 6; 7 is the oldest"):
        read_model(path)


def test_failed_conversion_is_one_line(tmp_path: Path) -> None:
    text = OPSET_9 + "g (float[1] x) => (float[1] y) { y = Nonsense(x) }"
    with pytest.raises(ModelError, match="cannot be converted to 13") as caught:
        read_model(saved(proto_of(text), tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value) and "m.onnx" in str(caught.value)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers_become_dense(tmp_path: Path, flat: bool) -> None:
    proto = network()
    dense = np.where(np.abs(normal(96, 48)) > 1.5, normal(96, 48), 0).astype(np.float32)
    [index] = [i for i, t in enumerate(proto.graph.initializer) if t.name == "matmul_w"]
    del proto.graph.initializer[index]
    where = np.argwhere(dense) if not flat else np.flatnonzero(dense)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense[dense != 0], "matmul_w"),
        numpy_helper.from_array(where.astype(np.int64), "matmul_w_indices"),
        dense.shape,
    )
    proto.graph.sparse_initializer.append(sparse)
    loaded = read_model(saved(proto, tmp_path / "m.onnx"))
    [weight] = [w for w in select_weights(loaded.model) if w.name == "matmul_w"]
    assert np.array_equal(weight.array(), dense)
    assert loaded.notes == ("1 sparse initializers made dense",)


def test_sparse_indices_outside_are_refused(tmp_path: Path) -> None:
    proto = network()
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.array([99], np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3, 3]))
    with pytest.raises(ModelError, match=r"m\.onnx: sparse initializer 's'.*outside"):
        read_model(saved(proto, tmp_path / "m.onnx"))


def external(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="m.bin", size_threshold=100)
    return path


def test_external_data_is_read_and_counted(tmp_path: Path) -> None:
    path = external(tmp_path)
    loaded = read_model(path)
    assert loaded.num_bytes == path.stat().st_size + (tmp_path / "m.bin").stat().st_size
    [weight] = [w for w in select_weights(loaded.model) if w.name == "matmul_w"]
    assert np.array_equal(weight.array(), normal(96, 48, seed=4))


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = (tmp_path / "m.bin").read_bytes()
    (tmp_path / "m.bin").write_bytes(data[:-100])
    with pytest.raises(
        ModelError, match=r"tensor '.*': external data .*m\.bin is too short: expected"
    ):
        read_model(path)
    (tmp_path / "m.bin").unlink()
    with pytest.raises(ModelError, match=r"external data .*m\.bin is missing"):
        read_model(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "C:\\x", "..\\x", ""])
def test_external_data_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    path = external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    with pytest.raises(ModelError, match="is not allowed"):
        read_model(saved(proto, path))


def test_no_file_no_onnx(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not a file"):
        read_model(tmp_path)
    path = tmp_path / "m.onnx"
    for data in (
        b"hello world, this is no model",
        b"PK\x03\x04" + bytes(200),
        b"\x08\x08",
        bytes(50),
    ):
        path.write_bytes(data)
        with pytest.raises(ModelError, match="not an ONNX model") as caught:
            read_model(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="empty"):
        read_model(path)


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    data = network().SerializeToString()
    assert announced_bytes(data) <= len(data)
    path = tmp_path / "m.onnx"
    for size in [*range(1, 60), *range(60, len(data) - 20, 997)]:
        path.write_bytes(data[:size])
        with pytest.raises(ModelError, match="truncated|not an ONNX model"):
            read_model(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        ModelError, match=f"truncated: the model announces at least .* has {len(data) // 2}"
    ):
        read_model(path)


def test_tensor_with_too_few_bytes_is_named(tmp_path: Path) -> None:
    proto = network()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    with pytest.raises(
        ModelError, match="tensor 'conv_w': expected 9216 bytes for shape .*, found 9212"
    ):
        read_model(saved(proto, tmp_path / "m.onnx"))


def test_compressed_already(tmp_path: Path) -> None:
    text = """< ir_version: 8, opset_import: ["" : 17, "toolkit" : 1] >
    g (float[1] x) => (int8[N] y) { z = Identity(x) y = toolkit.DecodeAdaptive(x) }"""
    with pytest.raises(ModelError, match="compressed already"):
        read_model(saved(proto_of(text), tmp_path / "m.onnx"))


def test_initializers_listed_as_inputs(tmp_path: Path) -> None:
    proto = network()
    for tensor in proto.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(value)
    loaded = read_model(saved(proto, tmp_path / "m.onnx"))
    assert [value.name for value in loaded.model.graph.inputs] == ["x"]
    del proto.graph.input[2:]  # only one is left: a choice of the author
    loaded = read_model(saved(proto, tmp_path / "m.onnx"))
    assert [value.name for value in loaded.model.graph.inputs] == ["x", "conv_w"]
    assert loaded.notes == ("weight 'conv_w' is also a graph input and was left alone",)
    assert "conv_w" not in [w.name for w in select_weights(loaded.model)]


def test_bfloat16_stays(tmp_path: Path) -> None:
    loaded = read_model(saved(network(dtype="bfloat16"), tmp_path / "m.onnx"))
    assert {w.array().dtype.name for w in select_weights(loaded.model)} == {"bfloat16"}
