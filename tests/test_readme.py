# SPDX-License-Identifier: Apache-2.0
"""What the README shows is there: its commands, options, files and Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from passes import Recipe
from tests.toolkit_models import mlp
from toolkit.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [found for found in words if found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mlp(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    inputs = {
        value.name: np.random.default_rng(0)
        .standard_normal([d.dim_value or 4 for d in value.type.tensor_type.shape.dim])
        .astype(np.float32)
        for value in model.graph.input
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_toolkit_commands_run(folder: Path) -> None:
    ran = 0
    for program, *arguments in commands():
        if program != "toolkit":
            continue
        if "--target-size" in arguments:
            size = (folder / "model.onnx").stat().st_size // 2
            arguments[arguments.index("--target-size") + 1] = str(size)
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, (arguments, result.output)
        ran += 1
    assert ran >= 7


def test_recipes_are_sound() -> None:
    found = [Recipe.parse(text) for text in blocks("yaml")]
    assert found and all(recipe.rules for recipe in found)


def test_python_runs(folder: Path) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert (folder / "small.onnx").exists()


def test_make_targets_and_links_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in targets)
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    for module in re.findall(r"python -m (benchmarks\.\w+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
