# SPDX-License-Identifier: Apache-2.0
"""The import law: toolkit -> passes -> runtime, torch only where networks are trained."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "runtime": {"runtime"},
    "passes": {"passes", "runtime"},
    "toolkit": {"toolkit", "passes", "runtime"},
    "models": {"models", "toolkit", "passes", "runtime"},
}
OURS = set(ALLOWED) | {"tests", "benchmarks"}
TORCH_FOLDERS = ("toolkit/nn/", "toolkit/train/", "models/")
FILES = sorted(file for package in ALLOWED for file in (ROOT / package).rglob("*.py"))


def imported_packages(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down_only(file: Path) -> None:
    name = file.relative_to(ROOT).as_posix()
    package = name.partition("/")[0]
    imported = set(imported_packages(ast.parse(file.read_text(encoding="utf-8"))))
    assert imported & OURS <= ALLOWED[package]
    if not name.startswith(TORCH_FOLDERS):
        assert not imported & {"torch", "torchvision"}


def test_only_one_module_loads_the_library() -> None:
    loaders = [
        file.relative_to(ROOT).as_posix()
        for file in FILES
        # CDLL(None) is the process itself, with the C library that is in it anyway.
        if "CDLL(" in file.read_text(encoding="utf-8").replace("CDLL(None)", "")
    ]
    assert loaders == ["runtime/library.py"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("toolkit.cli", ["onnxruntime", "torch", "scipy", "onnx"]),
        ("runtime", ["onnxruntime", "onnx", "torch"]),
    ],
)
def test_heavy_packages_are_imported_late(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
