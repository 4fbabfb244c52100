# SPDX-License-Identifier: Apache-2.0
"""Writing: all or nothing, the mode of a new file, and external data where one file cannot hold
it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from passes import ModelError, model_writer, read_model, write_model
from tests.passes_models import model_of, network, normal, run, saved

X = {"x": normal(2, 8, 10, 10, seed=9)}


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_mode_follows_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "m.onnx"
    before = os.umask(umask)
    try:
        num_bytes = write_model(model_of(network()), path)
        data_bytes = write_model(model_of(network()), tmp_path / "n.onnx", max_file_bytes=1000)
    finally:
        os.umask(before)
    assert path.stat().st_size == num_bytes < data_bytes
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "n.onnx", "n.onnx.data"]


def test_external_data_above_the_limit(tmp_path: Path) -> None:
    model, path = model_of(network()), tmp_path / "m.onnx"
    num_bytes = write_model(model, path, max_file_bytes=1000)
    assert num_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    onnx.checker.check_model(path)
    again = read_model(path)
    assert np.array_equal(run(model, X)["y"], run(onnx.load(path), X)["y"])
    write_model(again.model, tmp_path / "one.onnx")  # external tensors are taken into the file
    (tmp_path / "m.onnx.data").unlink()
    assert np.array_equal(run(model, X)["y"], run(onnx.load(tmp_path / "one.onnx"), X)["y"])


def test_overwrites_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("old")
    path.chmod(0o640)
    write_model(model_of(network()), path)
    assert path.stat().st_mode & 0o777 == 0o640 and path.stat().st_size > 1000


def test_same_input_and_output(tmp_path: Path) -> None:
    path = saved(network(), tmp_path / "m.onnx")
    (tmp_path / "link.onnx").symlink_to(path)
    loaded = read_model(path)
    for output in (path, tmp_path / "link.onnx", tmp_path / "." / "m.onnx"):
        with pytest.raises(ModelError, match="same file as the input"):
            write_model(loaded.model, output, input_path=path)


def test_never_over_its_own_external_data(tmp_path: Path) -> None:
    onnx.save(
        network(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.bin",
        size_threshold=10,
    )
    loaded = read_model(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="holds the external data"):
        write_model(loaded.model, tmp_path / "m.bin")


def test_unwritable_paths(tmp_path: Path) -> None:
    model = model_of(network())
    with pytest.raises(ModelError, match=r"none/m\.onnx: cannot be written: No such file"):
        write_model(model, tmp_path / "none" / "m.onnx")
    with pytest.raises(ModelError, match="it is a folder"):
        write_model(model, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written: Not a directory"):
        write_model(model, tmp_path / "file" / "m.onnx")


@pytest.mark.parametrize("limit", [1000, 2**30])
@pytest.mark.parametrize(
    ("error", "raised", "match"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ModelError, "the disk is full"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_nothing_is_left_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    error: BaseException,
    raised: type[BaseException],
    match: str | None,
) -> None:
    def fail(descriptor: int) -> None:
        raise error

    model, path = model_of(network()), tmp_path / "m.onnx"
    path.write_text("old")
    monkeypatch.setattr(model_writer.os, "fsync", fail)
    with pytest.raises(raised, match=match):
        write_model(model, path, max_file_bytes=limit)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"] and path.read_text() == "old"
    monkeypatch.undo()
    write_model(model, path)  # the model itself is unharmed
    assert run(onnx.load(path), X)["y"].shape == (2, 48)
