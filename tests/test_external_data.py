# SPDX-License-Identifier: Apache-2.0
"""Models whose tensors all lie in another file, small ones too, and a process that works in any
folder: ONNX Runtime looks for such data where it works if it is given a model from memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.test_toolkit_cli import run
from tests.toolkit_models import mlp


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a model in a folder below the one where the test works."""
    (tmp_path / "sub").mkdir()
    whole = onnx.load(mlp(tmp_path / "sub" / "m.onnx"))
    path = tmp_path / "sub" / "e.onnx"
    onnx.save(whole, path, save_as_external_data=True, location="e.bin", size_threshold=0)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((40, 64), np.float32))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return "sub/e.onnx"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("compress", ["--bits", "6"]),
        ("compress", ["--lossless"]),
        ("compress", ["--calibration", "x.npz"]),
        ("scan", []),
        ("sweep", ["--points", "2"]),
        ("prune-channels", ["--calibration", "x.npz"]),
    ],
)
def test_commands_find_external_data(model: str, command: str, options: list[str]) -> None:
    done = run(command, model, *options)
    assert done.exit_code == 0, done.output
