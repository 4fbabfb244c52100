# SPDX-License-Identifier: Apache-2.0
"""Scales that take few values: stored as a table and symbols, the same weights in every way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import runtime
from passes import EncodeWeights
from passes.schemes import UniformParameters
from passes.schemes.scale_table import scale_bits, scale_table
from runtime.graph_fuse import fuse
from tests.passes_models import model_of, normal, portable, proto_of, run

ROWS = 600
TEXTS = {
    "matmul": (0, "y = MatMul(x, w)"),
    "columns": (1, "y = MatMul(x, w)"),
    "moved": (0, "t = Transpose<perm=[1,0]>(w) y = MatMul(x, t)"),
}


def parameters(axis: int, wide: bool, half: bool = False) -> UniformParameters:
    generator = np.random.default_rng(1)
    most = 900 if wide else 90
    symbols = generator.integers(-most, most, (ROWS, ROWS)).astype(np.int16 if wide else np.int8)
    scale = (2.0 ** -generator.integers(5, 9, ROWS)).astype(np.float32)
    dtype = np.dtype(np.float16 if half else np.float32)
    return UniformParameters(symbols, scale, None, axis, 0, dtype)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("opset", [17, 21])
def test_weights_are_the_same_in_every_way(
    kind: str, wide: bool, half: bool, opset: int, tmp_path: Path
) -> None:
    axis, body = TEXTS[kind]
    fitted, element = parameters(axis, wide, half), "float16" if half else "float"
    text = f'< ir_version: 8, opset_import: ["" : {opset}] >\n'
    text += f"net ({element}[N,{ROWS}] x) => ({element} y) {{ {body} }}"
    model = model_of(proto_of(text, {"w": normal(ROWS, ROWS).astype(fitted.dtype)}))
    result = EncodeWeights({"w": fitted}).call(model)
    [encoded] = result.encoded
    assert encoded.side_bytes < ROWS * 2
    portable(model)
    weight = run(model, {"x": np.eye(ROWS, dtype=fitted.dtype)[:3]}, ["w"])["w"]
    np.testing.assert_array_equal(weight, fitted.decode())
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.ModelProto.SerializeToString(_proto(model)))
    feed = {"x": np.eye(ROWS, dtype=fitted.dtype)}
    expected = fitted.decode().T if kind == "moved" else fitted.decode()
    for mode in ("load", "stream"):
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"], mode=mode)
        np.testing.assert_array_equal(session.run(None, feed)[0], expected)


def test_stream_mode_still_fuses() -> None:
    text = '< ir_version: 8, opset_import: ["" : 21] >\n'
    text += f"net (float[N,{ROWS}] x) => (float y) {{ y = MatMul(x, w) }}"
    model = model_of(proto_of(text, {"w": normal(ROWS, ROWS)}))
    EncodeWeights({"w": parameters(0, False)}).call(model)
    proto = _proto(model)
    fuse(proto)
    assert "DecodeDequantize" in {node.op_type for node in proto.graph.node}


def _proto(model: object) -> onnx.ModelProto:
    import onnx_ir as ir

    assert isinstance(model, ir.Model)
    return ir.serde.serialize_model(model)


def test_what_few_values_take() -> None:
    scale = np.repeat(np.array([0.5, 0.25, 1.0], np.float32), 400)
    table = scale_table(scale)
    assert table is not None
    np.testing.assert_array_equal(table.decode(), scale)
    assert scale_bits(scale) < 8 * scale.nbytes / 8


@pytest.mark.parametrize(
    "scale", [np.float32(1.0), np.ones(3, np.float32), np.arange(1, 600, dtype=np.float32)]
)
def test_scales_without_a_table(scale: np.ndarray) -> None:
    assert scale_table(np.asarray(scale)) is None
    assert scale_bits(np.asarray(scale)) == 32 * np.size(scale)
