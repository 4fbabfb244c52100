# SPDX-License-Identifier: Apache-2.0
"""`toolkit prune-channels`: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import toolkit
from tests.channel_models import coupled
from tests.passes_models import normal, saved
from tests.test_toolkit_cli import names, refused, run
from tests.toolkit_models import without_weights


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(coupled("residual"), tmp_path / "m.onnx")


BY_NORM = ("--selection", "l2", "--no-reconstruct")


def test_writes_a_smaller_model_that_runs(model: Path, tmp_path: Path) -> None:
    result = run("prune-channels", model, "--fraction", 0.25, "--multiple-of", 1, *BY_NORM)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == ["m.onnx", "m.pruned.onnx"]
    written = tmp_path / "m.pruned.onnx"
    assert written.stat().st_size < model.stat().st_size
    session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((3, 4, 6, 6), "f")})[0].shape == (3, 5)
    assert "left alone: fc_w, 5 channels: output 'y' of the model" in result.stdout


def test_calibration_and_json(model: Path, tmp_path: Path) -> None:
    data = np.random.default_rng(0).standard_normal((32, 4, 6, 6)).astype("f")
    np.savez(tmp_path / "data.npz", x=data)
    options = ("--calibration", tmp_path / "data.npz", "--selection", "lasso", "--json")
    result = run("prune-channels", model, "-o", tmp_path / "out.onnx", "--multiple-of", 2, *options)
    values = json.loads(result.stdout)
    assert values["pruned_macs"] < values["original_macs"]
    assert values["groups"][0]["num_removed"] == 2 and values["fidelity"]["sqnr_db"] > 0
    assert any("data.npz" in note for note in values["notes"])


def test_normalisation_is_folded_and_dead_weights_go(tmp_path: Path) -> None:
    proto = coupled("batch_norm")
    proto.graph.node.append(onnx.helper.make_node("Abs", ["w1"], ["unused"]))
    model = saved(proto, tmp_path / "bn.onnx")
    report = toolkit.prune_channels(
        model, tmp_path / "out.onnx", selection="l1", reconstruct=False, multiple_of=1
    )
    written = onnx.load(tmp_path / "out.onnx")
    kinds = {node.op_type for node in written.graph.node}
    assert kinds.isdisjoint({"BatchNormalization", "Abs"}) and "Conv" in kinds
    assert report.pruned_parameters < report.original_parameters
    assert [group.num_removed for group in report.groups] == [2]


def test_allocation_by_sensitivity(tmp_path: Path) -> None:
    """Of the branches of a Concat the one goes that the dense layer hardly listens to."""
    weight = normal(20, 5)
    weight[12:] *= 1e-3
    model = saved(coupled("concat", fc20_w=weight), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=normal(8, 4, 6, 6), x0=normal(8, 4, 4, 4))
    options = ("--calibration", tmp_path / "d.npz", "--allocation", "sensitivity", "--json")
    result = run("prune-channels", model, "--fraction", 0.25, "--multiple-of", 1, *options)
    values = json.loads(result.stdout)
    assert values["allocation"] == "sensitivity"
    assert [(g["name"], g["num_removed"]) for g in values["groups"]] == [("w2x", 4)]


def test_layers_by_pattern(model: Path, tmp_path: Path) -> None:
    report = toolkit.prune_channels(
        model, tmp_path / "out.onnx", layers={"w2": 0.5}, selection="l2", reconstruct=False
    )
    assert [group.num_removed for group in report.groups] == [4]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--fraction", "1.5"), "fraction"),
        (("--selection", "best"), "selection 'best'"),
        (("--allocation", "best"), "allocation 'best'"),
        (("--multiple-of", "0"), "multiple_of"),
        (("--layer", "w1"), "PATTERN=FRACTION"),
        (("--layer", "nope=0.5"), "'nope' matches no layer"),
        (("--layer", "w1=0.5", "--fraction", "0.5"), "exclude each other"),
        (("--fraction", "-0.1"), "fraction"),
        (("--fraction", "0"), "rounds to none"),
        (("--fraction", "0.1", "--multiple-of", "4"), "rounds to none"),
        (("--calibration", "missing.npz", "--selection", "greedy"), "missing.npz"),
    ],
)
def test_bad_options_give_one_line(
    model: Path, tmp_path: Path, options: tuple[str, ...], part: str
) -> None:
    refused(run("prune-channels", model, *BY_NORM, *options), part)
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ((), "selection 'greedy' needs real inputs"),
        (("--selection", "lasso", "--no-reconstruct"), "selection 'lasso' needs real inputs"),
        (("--selection", "l2"), "reconstruction needs real inputs"),
        (
            ("--selection", "l2", "--no-reconstruct", "--allocation", "sensitivity"),
            "allocation 'sensitivity' needs real inputs",
        ),
    ],
)
def test_what_is_fitted_needs_calibration(
    model: Path, tmp_path: Path, options: tuple[str, ...], part: str
) -> None:
    refused(run("prune-channels", model, *options), part)
    assert names(tmp_path) == ["m.onnx"]


def test_bad_models_give_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    refused(run("prune-channels", broken, *BY_NORM), "broken.onnx")
    refused(run("prune-channels", tmp_path / "none.onnx", *BY_NORM), "none.onnx")
    bare = without_weights(tmp_path / "bare.onnx")
    refused(run("prune-channels", bare, *BY_NORM), "no channel can be removed")
    assert names(tmp_path) == ["bare.onnx", "broken.onnx"]
