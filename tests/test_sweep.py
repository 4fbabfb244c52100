# SPDX-License-Identifier: Apache-2.0
"""The whole curve of a model: points that are kept, recipes that repeat them, workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import toolkit
from tests.toolkit_models import mlp
from toolkit import sweep_point
from toolkit.cli import main
from toolkit.errors import InputError

KNOBS = [-3.0, -1.0, 0.0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((160, 6)) @ rng.standard_normal((6, 64))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))
    return tmp_path / "x.npz"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return mlp(tmp_path / "m.onnx")


def test_points_are_computed_once(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "s.html"
    first = toolkit.sweep(model, knobs=KNOBS[:2], calibration=data, report=page, metric="cosine")
    assert [p.knob for p in first.points] == KNOBS[:2] and first.num_kept == 0
    computed: list[float] = []
    real = sweep_point.measure_point
    monkeypatch.setattr(
        sweep_point, "measure_point", lambda s, k: (computed.append(k), real(s, k))[1]
    )
    again = toolkit.sweep(model, knobs=KNOBS, calibration=data, metric="cosine")
    assert computed == KNOBS[2:] and again.num_kept == 2
    assert again.points[:2] == first.points and again.folder == first.folder
    sizes = [p.num_bytes for p in again.points]
    levels = [p.sqnr_db for p in again.points]
    assert sizes == sorted(sizes, reverse=True) and levels == sorted(levels, reverse=True)
    assert again.baseline == pytest.approx(1) and (again.points[0].score or 0) > 0.99
    text = page.read_text()
    assert text.count("<circle") == 2 and "+0.00" not in text and "-3.00" in text
    other = toolkit.sweep(model, knobs=KNOBS[:1], metric="cosine")
    assert other.folder != again.folder and other.num_kept == 0


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_recipe_of_a_point_makes_its_file(
    tmp_path: Path, model: Path, data: Path, calibrated: bool
) -> None:
    given = data if calibrated else None
    [point] = toolkit.sweep(model, knobs=[-0.5], calibration=given).points
    report = toolkit.compress(model, tmp_path / "o.onnx", recipe=point.recipe, calibration=given)
    assert report.compressed_bytes == point.num_bytes == (tmp_path / "o.onnx").stat().st_size
    assert report.fidelity.sqnr_db == pytest.approx(point.sqnr_db, abs=0.3)


@pytest.mark.parametrize("damage", ["facts.json", "sensitivity.json", "-0.500000.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", None])
def test_what_is_kept_and_damaged_is_computed_again(
    tmp_path: Path, model: Path, data: Path, damage: str, text: str | None
) -> None:
    options = {"knobs": [-0.5], "calibration": data, "folder": tmp_path / "kept"}
    before = toolkit.sweep(model, **options)  # type: ignore[arg-type]
    if text is None:
        (tmp_path / "kept" / damage).unlink()
    else:
        (tmp_path / "kept" / damage).write_text(text)
    after = toolkit.sweep(model, **{**options, "knobs": [-0.5, 0.5]})  # type: ignore[arg-type]
    assert after.points[0].num_bytes == before.points[0].num_bytes
    assert after.notes == before.notes and after.original_bytes == before.original_bytes
    again = toolkit.sweep(model, **options)  # type: ignore[arg-type]
    assert again.num_kept == 1


def test_workers_give_the_same_points(tmp_path: Path, model: Path, data: Path) -> None:
    alone = toolkit.sweep(model, knobs=KNOBS, calibration=data, folder=tmp_path / "a")
    for name in ("facts.json", "sensitivity.json", "sweep.txt"):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    side = toolkit.sweep(model, knobs=KNOBS, calibration=data, folder=tmp_path / "b", jobs=2)
    assert [(p.num_bytes, p.sqnr_db) for p in side.points] == [
        (p.num_bytes, p.sqnr_db) for p in alone.points
    ]


def test_a_killed_sweep_goes_on(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "kept"
    knobs = [f"--knob={knob}" for knob in np.linspace(-6, 1, 60)]
    command = [sys.executable, "-m", "toolkit", "sweep", str(model), "--folder", str(folder)]
    process = subprocess.Popen([*command, *knobs], stdout=subprocess.DEVNULL)
    stop = time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < 5 and time.monotonic() < stop:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("[+-]*.json")}
    assert 0 < len(kept) < 60
    (folder / "-6.000000.json").write_text("{")  # half-written by another program
    run = subprocess.run([*command, *knobs, "--json"], capture_output=True, check=True, text=True)
    found = json.loads(run.stdout)
    assert len(found["points"]) == 60 and found["num_kept"] == len(kept) - 1
    assert all(
        (folder / name).stat().st_mtime_ns == when
        for name, when in kept.items()
        if name != "-6.000000.json"
    )


def test_the_command_prints_a_table(model: Path) -> None:
    result = CliRunner().invoke(main, ["sweep", str(model), "--points", "2"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("knob\tbytes\tratio\tSQNR")
    assert lines[1].startswith("-5.00\t") and lines[2].startswith("+1.50\t")
    assert "2 points computed, 0 were kept" in lines[3]
    assert any("no calibration data" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "mpi"}, "--backend: expected one of loky"),
        ({"jobs": 0}, "--jobs"),
        ({"points": 1}, "--points: expected at least 2"),
        ({"knobs": [99.0]}, "--knob: expected"),
        ({"knobs": [0.0], "points": 3}, "--knob and --points"),
        ({"metric": "top1"}, "--labels"),
        ({"folder": "m.onnx"}, "is no folder"),
    ],
)
def test_bad_options(
    model: Path, options: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[type-arg]
    monkeypatch.chdir(model.parent)
    with pytest.raises(InputError, match=message) as found:
        toolkit.sweep(model, **options)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_clusters_without_their_packages(
    model: Path, monkeypatch: pytest.MonkeyPatch, backend: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(InputError, match=f"the package {package} is not installed"):
        toolkit.sweep(model, points=2, backend=backend)


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "kept"
    toolkit.sweep(model, knobs=[0.0], folder=folder)
    other = mlp(tmp_path / "other.onnx", seed=5)
    with pytest.raises(InputError, match="holds the points of a sweep of other files"):
        toolkit.sweep(other, knobs=[0.0], folder=folder)
    assert os.listdir(folder)
