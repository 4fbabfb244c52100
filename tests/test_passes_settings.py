# SPDX-License-Identifier: Apache-2.0
"""Settings and recipes: what is accepted, which rule wins, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from passes import Recipe, SettingsError, WeightSettings, select_weights
from tests.passes_models import model_of, network

RECIPE = """\
version: 1
default: {scheme: uniform, bits: 4}
rules:
  - match: "conv*"
    settings: {scheme: lossless}
  - op_type: MatMul
    min_size: 100
    settings:
      scheme: codebook
      entries: 8
  - match: "*"
    role: weight
    settings: {scheme: uniform, relative_step: 0.1}
"""


def test_first_rule_that_applies_wins() -> None:
    plan = Recipe.parse(RECIPE).assign(select_weights(model_of(network())))
    assert plan["conv_w"].scheme == "lossless" == plan["conv_b"].scheme
    assert plan["matmul_w"].entries == 8
    assert plan["gemm_w"].relative_step == 0.1
    assert plan["gemm_b"].scheme == "keep"


def test_default_for_what_no_rule_names() -> None:
    plan = Recipe(version=1).assign(select_weights(model_of(network())))
    assert plan["conv_w"] == WeightSettings(bits=8) and plan["conv_b"].scheme == "keep"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("version: 1\nrules:\n  - match: a\n    settings: {bits: 40}\n", 4, "bits"),
        ("version: 2\n", 1, "version"),
        ("version: 1\nrulez: []\n", 2, "rulez"),
        ("version: 1\nrules:\n  - settings: {scheme: uniform}\n", 3, "exactly one of bits"),
        (
            "version: 1\nrules:\n  - settings:\n      scheme: lossless\n      bits: 4\n",
            3,
            "belongs to scheme uniform",
        ),
        ("version: 1\nrules: [\n", 3, "not YAML"),
        ("- 1\n", 1, "mapping"),
        ("", 1, "mapping"),
    ],
)
def test_errors_name_the_line(text: str, line: int, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Recipe.parse(text, source="r.yaml")
    message = str(caught.value)
    assert message.startswith(f"r.yaml:{line}: ") and what in message and "\n" not in message


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("match: '*_w'", {"conv_w", "gemm_w", "matmul_w"}),
        ("regex: '(conv|gemm)_.'", {"conv_w", "conv_b", "gemm_w", "gemm_b"}),
        ("node: 'layer*'", {"conv_w", "conv_b"}),
        ("node_regex: 'layer[0-9]|last'", {"conv_w", "conv_b", "matmul_w"}),
        ("op_type: Gemm", {"gemm_w", "gemm_b"}),
        ("role: minor", {"conv_b", "gemm_b"}),
        ("min_size: 3000", {"gemm_w", "matmul_w"}),
        ("max_size: 40", {"conv_b"}),
        ("op_type: Conv, role: weight", {"conv_w"}),
    ],
)
def test_conditions(condition: str, expected: set[str]) -> None:
    proto = network()
    proto.graph.node[0].name, proto.graph.node[-1].name = "layer1", "last"
    text = f"version: 1\nrules: [{{{condition}, settings: {{bits: 3}}}}]\n"
    plan = Recipe.parse(text).assign(select_weights(model_of(proto)))
    assert {name for name, settings in plan.items() if settings.bits == 3} == expected


def test_rule_that_matches_nothing_is_an_error() -> None:
    recipe = Recipe.parse(
        "version: 1\nrules:\n  - match: nope*\n    settings: {bits: 4}\n", "r.yaml"
    )
    with pytest.raises(SettingsError, match=r"r\.yaml:3: the rule matches no weight .*nope"):
        recipe.assign(select_weights(model_of(network())))


def test_missing_recipe_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the recipe"):
        Recipe.read(tmp_path / "none.yaml")
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    assert len(Recipe.read(path).rules) == 3


@pytest.mark.parametrize(
    "options", [{}, {"bits": 4, "step": 1.0}, {"bits": 4, "coder": "zip"}, {"step": -1}]
)
def test_wrong_settings(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WeightSettings(**options)  # type: ignore[arg-type]
