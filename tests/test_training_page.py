# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/TRAINING.md run, in their order, and so do its commands."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit.cli import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "TRAINING.md"
MODULE = """\
import torch
from torch import nn

def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))

def data():
    torch.manual_seed(0)
    inputs = torch.randn(1200, 16)
    labels = (inputs @ torch.randn(16, 4)).argmax(1)
    parts = {"train": (0, 800), "validation": (800, 1000), "test": (1000, 1200)}
    return {name: (inputs[a:b], labels[a:b]) for name, (a, b) in parts.items()}
"""


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.S)


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    examples = blocks("python", text)
    assert len(examples) >= 7
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    assert "bytes at" in capsys.readouterr().out and Path("pruned.onnx").exists()

    Path("mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    (recipe,), (commands,) = blocks("yaml", text), blocks("sh", text)
    Path("recipe.yaml").write_text(recipe)
    try:
        for command in commands.splitlines():
            result = CliRunner().invoke(main, shlex.split(command)[1:])
            assert result.exit_code == 0, result.output
    finally:
        sys.modules.pop("mine", None)
    assert Path("small.onnx").exists() and Path("distilled/result.json").exists()
