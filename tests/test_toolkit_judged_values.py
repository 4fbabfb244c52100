# SPDX-License-Identifier: Apache-2.0
"""Outputs that are joined or squashed are judged by what they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

import runtime
import toolkit
from tests.toolkit_models import save
from toolkit.fidelity import compare_outputs
from toolkit.judged_values import LEAST_SCORE, JudgedValues
from toolkit.output_parts import MAX_PARTS, output_parts

RNG = np.random.default_rng(3)


def detector(path: Path) -> Path:
    """x [batch, 64] -> y [batch, 16, 1]: 4 boxes in pixels, probabilities of 12 rare classes."""
    arrays = {
        "A": 0.2 * RNG.standard_normal((64, 96)),
        "B": 60 * RNG.standard_normal((96, 4)),
        "C": 0.2 * RNG.standard_normal((96, 12)),
        "c": np.full(12, -5.0),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["h"]),
        helper.make_node("MatMul", ["h", "B"], ["boxes"]),
        helper.make_node("MatMul", ["h", "C"], ["s0"]),
        helper.make_node("Add", ["s0", "c"], ["scores"]),
        helper.make_node("Sigmoid", ["scores"], ["p"]),
        helper.make_node("Concat", ["boxes", "p"], ["joined"], axis=1),
        helper.make_node("Unsqueeze", ["joined", "axes"], ["y"]),
    ]
    arrays_of = {**arrays}
    model = save(
        path,
        nodes[:-1],
        arrays_of,
        [("x", TensorProto.FLOAT, ["batch", 64])],
        [("joined", TensorProto.FLOAT, ["batch", 16])],
    )
    proto = onnx.load(model)
    proto.graph.node.append(nodes[-1])
    proto.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [2]))
    del proto.graph.output[:]
    proto.graph.output.append(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16, 1])
    )
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return path


def test_parts_stand_before_concat_and_sigmoid(tmp_path: Path) -> None:
    graph = ir.load(detector(tmp_path / "m.onnx")).graph
    (parts,) = output_parts(graph).values()
    assert [part.value.name for part in parts] == ["boxes", "scores"]
    assert [part.key for part in parts] == ["y, part 1", "y, part 2 before Sigmoid"]


def test_outputs_of_one_part_or_too_many_are_left_whole(tmp_path: Path) -> None:
    def graph_of(count: int) -> ir.Graph:
        nodes = [helper.make_node("Relu", ["x"], [f"r{i}"]) for i in range(count)]
        nodes.append(helper.make_node("Concat", [n.output[0] for n in nodes], ["c"], axis=0))
        nodes.append(helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT))
        value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("x", "y")]
        graph = helper.make_graph(nodes, "g", value[:1], value[1:])
        return ir.from_proto(helper.make_model(graph)).graph

    assert output_parts(graph_of(1)) == {}
    assert len(output_parts(graph_of(MAX_PARTS))["y"]) == MAX_PARTS
    assert output_parts(graph_of(MAX_PARTS + 1)) == {}


def test_scores_that_detectors_hide_survive(tmp_path: Path) -> None:
    model = detector(tmp_path / "m.onnx")
    report = toolkit.compress(model, tmp_path / "small.onnx", min_sqnr=20.0)
    assert report.reached and "y by each of its 2 parts" in report.target
    assert any("1 of them before a Sigmoid" in note for note in report.notes)
    feed = {"x": RNG.standard_normal((200, 64)).astype(np.float32)}
    before = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    after = runtime.InferenceSession(
        str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"]
    )
    p, q = (s.run(None, feed)[0][:, 4:, 0].astype(np.float64) for s in (before, after))
    score, other = np.log(p / (1 - p)), np.log(q / (1 - q))
    signal = np.maximum(score.var(0), LEAST_SCORE**2)
    assert ((other - score) ** 2).mean() < 10**-1.7 * signal.mean()


def test_an_average_score_is_no_signal() -> None:
    key = "y, part 1 before Sigmoid"
    score = 8 * RNG.standard_normal((6, 50, 3)).astype(np.float32)
    run = [{"y": 0 * score, key: score + np.float32([-30, -20, -10])}]
    judged = JudgedValues.found(run, {"y": [key]})
    assert judged.centres[key].shape == (1, 1, 3)
    constant = [{"y": 0 * score, key: np.broadcast_to(judged.centres[key], score.shape)}]
    lost = compare_outputs(judged.of(run), judged.of(constant))
    assert lost.sqnr_db == pytest.approx(0.0, abs=0.01)
    assert list(judged.of(run)[0]) == [key]
    near = [{"y": 0 * score, key: run[0][key] + np.float32(0.8)}]
    assert compare_outputs(judged.of(run), judged.of(near)).sqnr_db == pytest.approx(20, abs=0.5)


def test_a_score_that_hardly_moves_is_measured_against_the_slope_of_a_sigmoid() -> None:
    key = "y, part 1 before Sigmoid"
    score = (0.01 * RNG.standard_normal((6, 50)) - 8).astype(np.float32)
    judged = JudgedValues.found([{"y": score, key: score}], {"y": [key]})
    off = [{"y": score, key: score + np.float32(0.1)}]
    found = compare_outputs(judged.of([{"y": score, key: score}]), judged.of(off))
    assert found.sqnr_db == pytest.approx(10 * np.log10(4**2 / 0.1**2), abs=0.1)


def test_targets_of_the_outputs_look_at_the_outputs(tmp_path: Path) -> None:
    report = toolkit.compress(
        detector(tmp_path / "m.onnx"), tmp_path / "small.onnx", max_error=0.01
    )
    assert report.reached and "parts" not in report.target
    assert 0.002 < report.fidelity.max_relative_error <= 0.01


def test_the_written_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run gives the outputs and the parts by which they are judged."""
    from toolkit import verify

    opened = []
    session = verify._session

    def counted(*given, **more):  # type: ignore[no-untyped-def]
        opened.append(given[0])
        return session(*given, **more)

    monkeypatch.setattr(verify, "_session", counted)
    found = toolkit.compress(detector(tmp_path / "d.onnx"), tmp_path / "s.onnx", min_sqnr=25)
    assert found.written and "y by" in found.target
    assert len(opened) == 1
    assert [output.name for output in found.fidelity.outputs] == ["y"]
