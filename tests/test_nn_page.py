# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/LAYERS.md run."""

from __future__ import annotations

import doctest
from pathlib import Path

import torch

PAGE = Path(__file__).parent.parent / "docs" / "LAYERS.md"


def test_examples(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    text = PAGE.read_text(encoding="utf-8").replace("```", "")
    names = {"getfixture": lambda name: tmp_path}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    test = parser.get_doctest(text, names, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 30
    runner.run(test)
    assert runner.failures == 0
