# SPDX-License-Identifier: Apache-2.0
"""Biases that take up the mean error of compressed weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

import toolkit
from passes.bias_correction import BiasPlace, bias_changes, bias_places
from passes.schemes import Compensated, FitContext
from passes.schemes.moments import MatrixLayout, Moments
from tests.passes_models import normal, proto_of
from tests.toolkit_models import mlp, save

GRAPH = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[N, 4] x, float[N, 2, 5, 5] i, float[6, N, 4] s)
    => (float[N, 3] y, float[N, 3] z, float[N, 3] q, float[N, 3, 5, 5] c, float[6, 1, N, 5] r,
        float[6, 1, N, 5] g)
<float[4, 3] M, float[3] m, float[4, 3] G, float[3] gb, float[4, 3] T, float[4, 3] A, float[3] a,
 float[3, 2, 1, 1] C, float[3] cb, float[1, 20, 4] W, float[1, 20, 5] R, float[1, 40] B,
 float[1, 15, 4] GW, float[1, 15, 5] GR, float[1, 30] GB>
{
    h = MatMul (x, M)
    y = Add (m, h)
    z0 = Gemm (x, G, gb)
    z1 = Gemm <alpha = 2.0> (x, A, a)
    z = Add (z0, z1)
    t = MatMul (x, T)
    q = Add (t, y)
    c = Conv (i, C, cb)
    r = LSTM <hidden_size = 5> (s, W, R, B)
    g = GRU <hidden_size = 5> (s, GW, GR, GB)
}
"""


def model() -> ir.Model:
    proto = onnx.parser.parse_model(GRAPH)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in proto.graph.value_info}  # fmt: skip
    values = {t.name: t for t in proto.graph.initializer}
    for name, shape in shapes.items():
        if name not in values and name.isalpha() and name not in ("h", "t"):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(*shape), name))
    return ir.serde.deserialize_model(proto)


def test_where_the_biases_are() -> None:
    names = ["M", "G", "T", "A", "C", "W", "R", "GW", "GR"]
    assert bias_places(model(), names) == {
        "M": BiasPlace("m"),
        "G": BiasPlace("gb"),
        "C": BiasPlace("cb"),
        "W": BiasPlace("B"),
        "R": BiasPlace("B", 20),
        "GW": BiasPlace("GB"),
    }


def test_a_bias_takes_the_mean_error_of_each_output() -> None:
    x = normal(50, 4, seed=1) + 2
    moments = Moments(
        (x.T @ x / 50)[None].astype(np.float32),
        x.mean(0)[None].astype(np.float32),
        50.0,
        MatrixLayout((0, 1), (4, 3), (), (0,), (1,)),
    )
    weight, other, bias = normal(4, 3, seed=2), normal(4, 3, seed=3), normal(3)
    changed = bias_changes(
        {"M": BiasPlace("m")}, [("M", weight - other)], {"M": moments}, {"m": bias}
    )
    before, after = x @ weight + bias, x @ other + changed["m"]
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-5)
    assert changed["m"].dtype == np.float32
    assert bias_changes({}, [("M", weight)], {"M": moments}, {}) == {}


def test_gates_of_both_directions() -> None:
    layout = MatrixLayout((0, 1, 2), (2, 20, 5), (0,), (2,), (1,))
    moments = Moments(np.ones((2, 5, 5), np.float32), np.full((2, 5), 2, np.float32), 9.0, layout)
    error = np.zeros((2, 20, 5), np.float32)
    error[1, 3] = 0.5
    places = {"R": BiasPlace("B", 20, 2)}
    changed = bias_changes(places, [("R", error)], {"R": moments}, {"B": np.zeros((2, 40))})["B"]
    assert changed[1, 23] == 5.0 and np.count_nonzero(changed) == 1


def test_centred_rounding_misses_less_about_the_mean() -> None:
    rng = np.random.default_rng(4)
    mixing = rng.standard_normal((16, 16))
    x = np.maximum(rng.standard_normal((400, 16)) @ mixing + 3, 0)
    layout = MatrixLayout((0, 1), (16, 40), (), (0,), (1,))
    moments = Moments(
        (x.T @ x / 400)[None].astype(np.float32), x.mean(0)[None].astype(np.float32), 400.0, layout
    )
    weight = normal(16, 40, seed=5)
    spread = []
    for centred in (False, True):
        scheme = Compensated(step=0.8, rate_weight=0.0, centred=centred, adaptive=False)
        missed = x @ (weight - scheme.fit(weight, FitContext(moments=moments)).decode())
        spread.append(float(np.var(missed, axis=0).sum()))
    assert spread[1] < 0.9 * spread[0]


@pytest.mark.parametrize("way", ["recipe", "search"])
def test_the_written_file_has_other_biases(tmp_path: Path, way: str) -> None:
    path = mlp(tmp_path / "m.onnx")
    x = np.maximum(np.random.default_rng(0).standard_normal((256, 64)) + 1, 0).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "r.yaml").write_text(
        "version: 1\nrules:\n- {role: minor, settings: {scheme: keep}}\n"
        "default: {stages: [{compensated: {relative_step: 1.0, centred: true}}]}\n"
    )
    given = {"recipe": tmp_path / "r.yaml"} if way == "recipe" else {"min_sqnr": 12}
    output = tmp_path / "o.onnx"
    toolkit.compress(path, output, calibration=tmp_path / "x.npz", **given)  # type: ignore[arg-type]
    toolkit.expand(output, tmp_path / "e.onnx")
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(p).graph.initializer}
        for p in (path, tmp_path / "e.onnx")
    )
    assert not np.allclose(before["b"], after["b"], atol=1e-4)
    runs = [
        onnxruntime.InferenceSession(p, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for p in (path, tmp_path / "e.onnx")
    ]
    missed = np.asarray(runs[1]) - np.asarray(runs[0])
    assert np.abs(missed.mean(0)).max() < 0.35 * missed.std(0).max()


def test_weights_without_a_bias_are_not_centred(tmp_path: Path) -> None:
    """Asked of all weights, `centred` holds where a bias takes up the mean; elsewhere errors count
    in full, and a note says so."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> net (float[n, 32] x) => (float[n, 24] y) '
        "{ y = MatMul(x, w) }"
    )
    path, rng = tmp_path / "m.onnx", np.random.default_rng(0)
    onnx.save(proto_of(text, {"w": normal(32, 24, seed=1)}), path)
    x = rng.standard_normal((512, 32)) @ rng.standard_normal((32, 32)) / 6 + 2
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))
    found = {}
    for centred in ("true", "false"):
        (tmp_path / "r.yaml").write_text(
            "version: 1\n"
            f"default: {{stages: [{{compensated: {{relative_step: 0.5, centred: {centred}}}}}]}}\n"
        )
        report = toolkit.compress(
            path, tmp_path / "o.onnx", recipe=tmp_path / "r.yaml", calibration=tmp_path / "x.npz"
        )
        found[centred] = report.fidelity.sqnr_db
        said = [note for note in report.notes if "no bias of its own" in note]
        assert len(said) == (centred == "true")
    assert found["true"] == found["false"]


def convolutions(path: Path) -> Path:
    """Layers whose biases are zeros, as exporters write them in front of a normalisation: few, and
    alike, in two of them, hundreds in the last."""
    rng = np.random.default_rng(5)
    arrays = {
        "w0": rng.standard_normal((48, 8, 3)) / 5,
        "b0": np.zeros(48),
        "w1": rng.standard_normal((48, 48, 3)) / 12,
        "b1": np.zeros(48),
        "w2": rng.standard_normal((320, 48, 3)) / 12,
        "b2": np.zeros(320),
        "w3": rng.standard_normal((320, 16)) / 18,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["h1"]),
        helper.make_node("Conv", ["h1", "w1", "b1"], ["h2"]),
        helper.make_node("Relu", ["h2"], ["h3"]),
        helper.make_node("Conv", ["h3", "w2", "b2"], ["h4"]),
        helper.make_node("Relu", ["h4"], ["h5"]),
        helper.make_node("GlobalAveragePool", ["h5"], ["h6"]),
        helper.make_node("Flatten", ["h6"], ["h7"]),
        helper.make_node("MatMul", ["h7", "w3"], ["y"]),
    ]
    given = [("x", TensorProto.FLOAT, ["batch", 8, 20])]
    return save(path, nodes, arrays, given, [("y", TensorProto.FLOAT, ["batch", 16])])


@pytest.mark.parametrize("options", [{"min_sqnr": 15}, {"target_size": 15000}])
def test_biases_of_zeros_take_up_errors(tmp_path: Path, options: dict[str, float]) -> None:
    path = convolutions(tmp_path / "m.onnx")
    x = np.abs(np.random.default_rng(0).standard_normal((200, 8, 20))).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    output = tmp_path / "o.onnx"
    found = toolkit.compress(path, output, calibration=tmp_path / "x.npz", **options)  # type: ignore[arg-type]
    assert found.reached
    toolkit.expand(output, tmp_path / "e.onnx")
    stored = onnx.load(tmp_path / "e.onnx").graph.initializer
    after = {t.name: onnx.numpy_helper.to_array(t) for t in stored}
    assert all(np.abs(after[name]).max() > 1e-4 for name in ("b0", "b1"))
    assert "b2" in {row.name for row in found.tensors}  # of which symbols may be stored as they are


def test_points_of_a_sweep_count_biases_that_were_zeros(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "m.onnx")
    x = np.abs(np.random.default_rng(0).standard_normal((200, 8, 20))).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    given = {"calibration": tmp_path / "x.npz"}
    sweep = toolkit.sweep(path, knobs=[-2.0], folder=tmp_path / "sweep", **given)
    point = sweep.points[0]
    found = toolkit.compress(path, tmp_path / "o.onnx", recipe=point.recipe, **given)
    assert found.compressed_bytes == pytest.approx(point.num_bytes, abs=16)
