# SPDX-License-Identifier: Apache-2.0
"""Bad recipes, schemes, options and inputs at the command line: one line each, nothing changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.test_toolkit_cli import refused, run
from tests.toolkit_models import mlp
from toolkit.verify import run_compressed

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]" + "".join(
    f"\na{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)
)
RECIPES = {
    "default: {bits: 4}\ndefault: {bits: 8}": ":3: key 'default' is given twice",
    "rules:\n  - {match: A, match: B, settings: {bits: 4}}": ":3: key 'match' is given twice",
    "defalt: {bits: 4}": ":2: defalt: unknown key, expected one of version, rules, default, minor",
    "rules:\n  - {name: A, settings: {bits: 4}}": ":3: rules.0.name: unknown key, expected one",
    "rules:\n  - {match: A, settings: {bit: 4}}": ":3: rules.0.settings.bit: unknown key, expected",
    "rules:\n  - match: A": ":3: rules.0.settings: is missing",
    "rules: {match: A}": ":2: rules: expected a list",
    "default:": ":2: default: expected a mapping",
    "default: {1: 2}": ":2: default.1: expected a name",
    "default: {stages: [{uniform: {1: 2}}]}": ":2: default: uniform: unknown option 1, expected",
    "default: {stages: [{trellis: {bits: 4}}], coder: huffman}": ":2: default: trellis goes with",
    "default: {stages: [{sum: {parts: [[{trellis: {bits: 4}}]]}}], coder: fixed}": "trellis goes",
    "rules:\n  - {match: '*', settings: {bits: 4}}\n  - {match: A, settings: {bits: 8}}": (
        ":4: the rule comes after rules that take all of its weights (match 'A')"
    ),
    "default: {bits: 4, group_size: 32}": ":2: default: group_size belongs to granularity group",
    "default: {bits: 4, entries: 8}": ":2: default: entries belongs to scheme codebook, not",
    "default: {scheme: codebook, granularity: row}": "granularity belongs to scheme uniform, not",
    "default: {stages: [{uniform: {bits: 4, group_size: 8}}]}": "group_size goes with granularity",
    "default: {stages: [{transform: {block: -3}}, uniform]}": ":2: default: uniform: give exactly",
    "default: {stages: [{transform: {block: -3}}, codebook]}": ":2: default: transform: block must",
    "default: &a {stages: [*a]}": ":2: an alias stands inside of what it stands for",
    "rules: &a [*a]": ":2: an alias stands inside of what it stands for",
    BOMB: ":7: aliases make this more than 100,000 values",
    f"default: {{bits: {'9' * 5000}}}": ": not YAML: Exceeds the limit",
    "default: {bits: 2001-13-45}": ": not YAML: month must be in 1..12",
    "default:\n\tbits: 4": ":3: not YAML: found character '\\t' that cannot start any token",
    "default: !!python/object/apply:os.system [ls]": ":2: not YAML: could not determine a constr",
    "---\ndefault: {bits: 4}": ":2: not YAML: but found another document",
    "- a": ":2: not YAML: expected <block end>",
    "default: {bits: -4}": ":2: default.bits: Input should be greater than or equal to 2",
    "default: {bits: true}": ":2: default.bits: expected a number, found true",
    "default: {bits: 4, symmetric: 0}": "default.symmetric: expected true or false, found 0",
    "rules:\n  - {min_size: false, settings: {bits: 4}}": "rules.0.min_size: expected a number",
    "default: {stages: [{uniform: {bits: yes}}]}": "default: uniform: bits: expected a number",
    "default: {stages: [{prune: {pattern: [true, 4]}}, codebook]}": "prune: pattern: expected a",
    "default: {stages: [{uniform: {bits: 4, symmetric: 1}}]}": "symmetric: expected true or false",
    "default: {relative_step: .nan}": ":2: default.relative_step: Input should be a finite number",
    "default: {stages: [{prune: {pattern: [5, 4]}}, codebook]}": "pattern must be (n, m) with n at",
    "default: {stages: [{low_rank: {rank: -1}}, codebook]}": "the rank must be at least 0, not -1",
    "default: {stages: [{transform: {kind: db999}}, codebook]}": "kind 'db999' is none of dct, dst",
    "default: {stages: [{transform: {kind: morl}}, codebook]}": "kind 'morl' is none of dct, dst",
    "rules:\n  - {regex: 'a(b', settings: {bits: 4}}": ":3: rules.0: regex 'a(b': missing ), unter",
    "rules:\n  - {match: 'zz*', settings: {bits: 4}}": ":3: the rule matches no weight (match 'zz",
    "default: {bits: 16, coder: huffman}": "weight A and 1 more: coder huffman cannot hold symbols",
    "default: {stages: [{transform: {kind: dct, axes: [5]}}, codebook]}": "weight A: transform: ax",
    "default: {stages: [{prune: {fraction: 0.5}}, {low_rank: {rank: 2}}]}": "weight A: low rank: a",
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.onnx").write_text("before")
    return mlp(tmp_path / "m.onnx")


@pytest.mark.parametrize("text", RECIPES)
def test_recipes(model: Path, text: str) -> None:
    Path("r.yaml").write_text(f"version: 1\n{text}\n")
    refused(run("compress", model, "-o", "out.onnx", "--recipe", "r.yaml"), RECIPES[text])
    assert Path("out.onnx").read_text() == "before"


@pytest.mark.parametrize(
    "data",
    [b"", b"# nothing", b"null", b"- a", b"\xff\xfe", b"version: 1\n# \xff", b"version: 1\0"],
)
def test_what_is_no_recipe(model: Path, data: bytes) -> None:
    Path("r.yaml").write_bytes(data)
    refused(run("compress", model, "-o", "out.onnx", "--recipe", "r.yaml"), "r.yaml")
    assert Path("out.onnx").read_text() == "before"


@pytest.mark.parametrize(
    "stages",
    [
        "[{prune: {pattern: [2, 4000000]}}, {uniform: {bits: 4}}]",
        "[{prune: {sparsity: 0.5, granularity: block, block: [1000, 1000]}}, {uniform: {bits: 4}}]",
        "[{uniform: {bits: 4, granularity: bucket, group_size: 1000000000}}]",
        "[{transform: {kind: dct, block: 100000}}, {uniform: {bits: 4}}]",
        "[{low_rank: {rank: 0}}, {uniform: {bits: 4}}]",
        "[{low_rank: {rank: 100000}}, {uniform: {bits: 4}}]",
        "[{prune: {keep: 1000000000}}, {uniform: {bits: 4}}]",
    ],
)
def test_more_than_a_weight_has_is_all_of_it(model: Path, stages: str) -> None:
    """Blocks, runs and ranks larger than a weight are the weight's own size."""
    Path("r.yaml").write_text(f"version: 1\ndefault: {{stages: {stages}}}\n")
    result = run("compress", model, "-o", "out.onnx", "--recipe", "r.yaml", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert len(run_compressed(Path("out.onnx"), [{"x": np.zeros((1, 64), np.float32)}], 1)) == 1


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("compress --recipe trellis --target-ratio 3", "trellis has no rules, and with a target"),
        ("compress --calibration lost.npz", "lost.npz: the model's outputs on it are not finite"),
        ("scan --min-sqnr nan", "--min-sqnr: expected a number above 0, found nan"),
        ("scan --min-size 0", "--min-size: expected at least 1, found 0"),
        ("scan --jobs 0", "--jobs: expected at least 1, found 0"),
        ("scan --recipe out.onnx --report out.onnx", "out.onnx: is given for two outputs"),
        ("scan --schemes none.yaml", "schemes: the list is empty"),
        ("scan --sparsity 0.5 --schemes odd.yaml", "a stage prune with a list of sparsities"),
        ("prune-channels --seed -1", "--seed: expected at least 0, found -1"),
        ("prune-channels --jobs 0", "--jobs: expected at least 1, found 0"),
        ("recipe trellis --schema", "NAME and --schema: give only one of them"),
    ],
)
def test_options(model: Path, command: str, part: str) -> None:
    np.savez("lost.npz", x=np.full((2, 64), np.inf, np.float32))
    Path("none.yaml").write_text("[]")
    Path("odd.yaml").write_text("[[{prune: {sparsity: [.nan]}}]]")
    name, *options = command.split()
    before = {path.name for path in Path().iterdir()}
    output = {"compress": ("-o", "out.onnx"), "prune-channels": ("-o", "out.onnx")}.get(name, ())
    refused(run(name, *(() if name == "recipe" else (model,)), *output, *options), part)
    assert Path("out.onnx").read_text() == "before"
    assert {path.name for path in Path().iterdir()} == before
