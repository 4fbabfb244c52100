# SPDX-License-Identifier: Apache-2.0
"""Calibration from a function, feeds in pieces, and moments that are kept on disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from passes.schemes.moments import Moments, RowUse
from tests.toolkit_models import embedding, mlp
from toolkit import compress, moment_store
from toolkit.calibration import read_calibration, split_feeds
from toolkit.errors import InputError, OutputError
from toolkit.moment_store import MomentStore, moments_of
from toolkit.pipeline import read_source
from toolkit.signature import InputSpec

X = InputSpec("x", "float", ("batch", 64))
CODE = """
import numpy as np
def feeds():
    for seed in range(5):
        yield {"x": np.random.default_rng(seed).standard_normal((3, 64)).astype(np.float32)}
def one():
    return {"x": np.zeros((2, 64), np.float32)}
def broken():
    yield {"x": np.zeros((2, 64), np.float32)}
    raise RuntimeError("no more data")
def wrong():
    return [np.zeros(3)]
def nothing():
    return []
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user_calibration.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "user_calibration", raising=False)
    return "user_calibration"


def test_feeds_from_a_function(module: str) -> None:
    path = list(sys.path)
    feeds = read_calibration(Path(f"{module}:feeds"), [X], 4)
    assert [feed["x"].shape for feed in feeds] == [(3, 64)] * 4
    assert len(read_calibration(Path(f"{module}:one"), [X], 4)) == 1
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "failed .RuntimeError: no more data"),
        ("wrong", "its feed 1 is ndarray, expected a mapping"),
        ("nothing", "yields no feed"),
        ("absent", "cannot be imported"),
        ("number", "is no function"),
    ],
)
def test_functions_that_do_not_work_are_named(module: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        read_calibration(Path(f"{module}:{name}"), [X], 4)
    assert f"{module}:{name}" in str(found.value)
    assert "\n" not in str(found.value)


def test_compress_takes_a_function(module: str, tmp_path: Path) -> None:
    report = compress(mlp(tmp_path / "m.onnx"), calibration=f"{module}:feeds", min_sqnr=30)
    assert report.written
    assert any(f"5 feeds from {module}:feeds" in note for note in report.notes)


def test_feeds_are_split_along_a_dynamic_batch() -> None:
    feed = {"x": np.arange(10.0).reshape(5, 2), "m": np.arange(5)}
    symbolic = [InputSpec("x", "double", ("n", 2)), InputSpec("m", "int64", ("n",))]
    pieces = list(split_feeds([feed], symbolic, 2))
    assert [len(piece["m"]) for piece in pieces] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([p["x"] for p in pieces]), feed["x"])
    fixed = [InputSpec("x", "double", (5, 2)), InputSpec("m", "int64", (5,))]
    assert len(list(split_feeds([feed], fixed, 2))) == 1
    different = [InputSpec("x", "double", ("n", 2)), InputSpec("m", "int64", ("k",))]
    assert len(list(split_feeds([feed], different, 2))) == 1


def feeds_of(count: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"ids": np.arange(8).reshape(2, 4) + seed} for seed in range(count)]


def test_moments_are_measured_once(tmp_path: Path) -> None:
    source = read_source(embedding(tmp_path / "m.onnx"))
    texts: list[str] = []
    names, home = list(source.weights), tmp_path / "kept"
    first = moments_of(source, feeds_of(), names, 1, texts.append, home)
    again = moments_of(source, feeds_of(), names, 1, texts.append, home)
    assert (first.was_kept, again.was_kept) == (False, True)
    assert texts == ["gradients", "run 1 of 3", "run 2 of 3", "run 3 of 3"]
    assert set(again) == {"table", "W"} and len(again) == 2
    table, layer = again["table"], again["W"]
    assert isinstance(table, RowUse) and isinstance(layer, Moments)
    assert table.counts.sum() == 24
    assert layer.inputs.shape == (1, 32, 32) and layer.count == 24
    assert layer.layout.matrix_shape == (1, 32, 32)
    assert len(list(home.iterdir())) == 1


def test_other_data_or_another_model_is_measured_anew(tmp_path: Path) -> None:
    home = tmp_path / "kept"
    source = read_source(embedding(tmp_path / "m.onnx"))
    moments_of(source, feeds_of(), ["W"], 1, kept_in=home)
    assert not moments_of(source, feeds_of(2), ["W"], 1, kept_in=home).was_kept
    assert not moments_of(source, feeds_of(), ["W", "table"], 1, kept_in=home).was_kept
    other = read_source(embedding(tmp_path / "o.onnx", rows=299))
    assert not moments_of(other, feeds_of(), ["W"], 1, kept_in=home).was_kept


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, source = tmp_path / "kept", read_source(embedding(tmp_path / "m.onnx"))
    moments_of(source, feeds_of(1), ["W"], 1, kept_in=home)
    [old] = home.iterdir()
    os.utime(old, (0, 0))
    monkeypatch.setattr(moment_store, "MAX_KEPT_BYTES", 100)
    moments_of(source, feeds_of(2), ["W"], 1, kept_in=home)
    assert not old.exists()
    assert len(list(home.iterdir())) == 1


def test_what_is_in_use_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, source = tmp_path / "kept", read_source(embedding(tmp_path / "m.onnx"))
    monkeypatch.setattr(moment_store, "MAX_KEPT_BYTES", 0)
    in_use = moments_of(source, feeds_of(1), ["W"], 1, kept_in=home)
    moments_of(source, feeds_of(2), ["W"], 1, kept_in=home)
    assert isinstance(in_use["W"], Moments)
    del in_use
    moments_of(source, feeds_of(3), ["W"], 1, kept_in=home)
    assert len(list(home.iterdir())) == 1


def test_the_first_of_two_that_measure_the_same_stays(tmp_path: Path) -> None:
    home, source = tmp_path / "kept", read_source(embedding(tmp_path / "m.onnx"))
    other: list[MomentStore] = []

    def meanwhile(text: str) -> None:
        if not other:
            other.append(moments_of(source, feeds_of(1), ["W"], 1, kept_in=home))

    mine = moments_of(source, feeds_of(1), ["W"], 1, meanwhile, home)
    assert len(list(home.iterdir())) == 1
    for store in (mine, *other):
        assert isinstance(store["W"], Moments)


def test_debris_gives_way(tmp_path: Path) -> None:
    home, source = tmp_path / "kept", read_source(embedding(tmp_path / "m.onnx"))
    moments_of(source, feeds_of(1), ["W"], 1, kept_in=home)
    [folder] = home.iterdir()
    (folder / "index.json").unlink()
    killed = home / "making-killed"
    killed.mkdir()
    os.utime(killed, (0, 0))
    again = moments_of(source, feeds_of(1), ["W"], 1, kept_in=home)
    assert not again.was_kept and isinstance(again["W"], Moments)
    assert [entry.name for entry in home.iterdir()] == [folder.name]


def test_nothing_half_measured_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "kept"
    source = read_source(mlp(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match="NaN or infinity"):
        moments_of(source, [{"x": np.full((2, 64), np.nan, np.float32)}], ["A"], 1, kept_in=home)
    assert list(home.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        moments_of(source, [{"x": np.ones((2, 64), np.float32)}], ["A"], 1,
                   kept_in=tmp_path / "file")  # fmt: skip


def test_unreached_weights_say_why(tmp_path: Path) -> None:
    source = read_source(mlp(tmp_path / "m.onnx"))
    feed = {"x": np.zeros((0, 64), np.float32)}
    store = moments_of(source, [feed], ["A", "B"], 1, kept_in=tmp_path / "kept")
    assert store.missing == dict.fromkeys("AB", "no calibration sample reached it")
