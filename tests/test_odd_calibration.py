# SPDX-License-Identifier: Apache-2.0
"""Calibration data and code of the user's that fail late: one line each, and exit code 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from tests.test_toolkit_cli import refused, run
from tests.toolkit_models import embedding, mlp
from toolkit.calibration import read_calibration
from toolkit.calibration_callable import load_callable
from toolkit.errors import InputError
from toolkit.metrics import Metric
from toolkit.signature import InputSpec

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("row", [0, 25, 30, 58, 79])
@pytest.mark.parametrize("options", [{}, {"bits": 8}, {"min_agreement": 0.9}])
def test_an_id_out_of_range_anywhere_is_bad_input(
    tmp_path: Path, row: int, options: dict[str, float]
) -> None:
    model = embedding(tmp_path / "m.onnx", rows=100)
    ids = RNG.integers(0, 100, (80, 6))
    ids[row, 2] = 100
    np.savez(tmp_path / "ids.npz", ids=ids)
    with pytest.raises(InputError, match="does not run on"):
        toolkit.compress(model, calibration=tmp_path / "ids.npz", **options)  # type: ignore[arg-type]


USER = """
import sys
import numpy
def rows():
    for seed in range(3):
        yield {"x": numpy.random.default_rng(seed).standard_normal((4, 64)).astype("float32")}
def feeds():
    yield {"x": [[0.0] * 64]}
    sys.exit("done here")
def leaves(run):
    sys.exit(3)
def words(run):
    return "0.5"
def key(run):
    return {}["absent"]
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "odd_user.py").write_text(USER)
    (tmp_path / "odd_leaver.py").write_text("raise SystemExit(5)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "odd_user"


def test_code_of_the_user_cannot_end_the_command(tmp_path: Path, user: str) -> None:
    specs = [InputSpec("x", "float", ("n", 64))]
    with pytest.raises(InputError, match=r"failed \(SystemExit: done here\)"):
        read_calibration(Path(f"{user}:feeds"), specs, 10)
    with pytest.raises(InputError, match=r"leaves: failed \(SystemExit: 3\)"):
        Metric(f"{user}:leaves").score(dict)
    with pytest.raises(InputError, match=r"cannot be imported \(SystemExit: 5\)"):
        load_callable("odd_leaver:feeds", "--calibration")


@pytest.mark.parametrize(
    "command",
    [["compare", "m.onnx", "m.onnx"], ["scan", "m.onnx"], ["prune-channels", "m.onnx"]],
    ids=lambda command: command[0],
)
def test_every_command_takes_a_function(
    tmp_path: Path, user: str, command: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    done = run(*command, "--calibration", f"{user}:rows", "--json")
    assert done.exit_code == 0, done.output
    refused(run(*command, "--calibration", f"{user}:feeds"), "SystemExit: done here")


def test_a_metric_gives_a_number_and_says_what_went_wrong(tmp_path: Path, user: str) -> None:
    with pytest.raises(InputError, match="returned '0.5', expected a number"):
        Metric(f"{user}:words").score(dict)
    with pytest.raises(InputError, match="KeyError: 'absent'"):
        Metric(f"{user}:key").score(dict)
    with pytest.raises(InputError, match="expected top1, cosine, auc, perplexity or module:"):
        toolkit.compress(mlp(tmp_path / "m.onnx"), metric="f1", max_drop=0.1)


def test_a_file_that_is_none_of_numpys_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("hello")
    with pytest.raises(InputError, match=r"x\.npz: is no readable .* \(it begins like neither"):
        read_calibration(tmp_path, [InputSpec("x", "float", ("n", 64))], 10)


def recurrent(path: Path, bias: float) -> Path:
    """An LSTM with lengths of sequences and a small projection of it around `bias`."""
    width, hidden = 16, 24
    weights = {
        "W": RNG.standard_normal((1, 4 * hidden, width)) / 4,
        "R": RNG.standard_normal((1, 4 * hidden, hidden)) / 5,
        "P": RNG.standard_normal((hidden, 8)) / 50,
        "b": np.full(8, bias),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "", "lens"], ["y"], hidden_size=hidden),
        helper.make_node("MatMul", ["y", "P"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["seq", "batch", width]),
            helper.make_tensor_value_info("lens", TensorProto.INT32, ["batch"]),
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=10)
    onnx.save(model, path)
    return path


def test_made_up_lengths_fit_the_sequence(tmp_path: Path) -> None:
    """Lengths below 100 of sequences of 64: some feeds run and others do not."""
    report = toolkit.compress(recurrent(tmp_path / "m.onnx", 0.5), tmp_path / "o.onnx")
    assert report.reached


def test_what_a_layer_gives_is_no_probability(tmp_path: Path) -> None:
    """All of its values lie between 0 and 1, by chance: the target speaks of them all the same."""
    model = recurrent(tmp_path / "m.onnx", 0.5)
    feeds = {
        "x": RNG.standard_normal((10, 8, 16)).astype(np.float32),
        "lens": np.full(8, 10, np.int32),
    }
    (tmp_path / "data").mkdir()
    for number in range(8):
        np.savez(tmp_path / "data" / f"{number}.npz", **feeds)
    report = toolkit.compress(
        model, tmp_path / "o.onnx", min_sqnr=30, calibration=tmp_path / "data"
    )
    assert report.reached and report.fidelity.sqnr_db >= 30
    assert not any("probabilities" in note for note in report.notes)


def test_files_come_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    """Labels belong to samples by their order."""
    for number in (0, 1, 2, 9, 10, 11, 100):
        np.savez(tmp_path / f"s{number}.npz", x=np.full((1, 64), number, np.float32))
    (tmp_path / "sub12").mkdir()
    (tmp_path / "sub3").mkdir()
    for name, number in (("sub12", 500), ("sub3", 400)):
        np.save(tmp_path / name / "x.npy", np.full((1, 64), number, np.float32))
    feeds = read_calibration(tmp_path, [InputSpec("x", "float", ("n", 64))], 99)
    assert [int(feed["x"][0, 0]) for feed in feeds] == [0, 1, 2, 9, 10, 11, 100, 400, 500]
