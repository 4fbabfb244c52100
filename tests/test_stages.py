# SPDX-License-Identifier: Apache-2.0
"""Stages of recipes: names to nested schemes, and every mistake in one line."""

from __future__ import annotations

import json

import pytest
import yaml

from passes import Recipe, SettingsError
from passes.errors import SchemeError
from passes.schemes import Codebook, LowRank, Prune, Sum, Tucker, Uniform
from passes.settings import Coding
from passes.stages import SCHEMES, options_model, scheme_of
from toolkit import recipes


def test_stages_become_schemes() -> None:
    assert scheme_of([{"uniform": {"bits": 4}}]) == Uniform(bits=4)
    assert scheme_of(["codebook"]) == Codebook()
    assert scheme_of([{"codebook": None}]) == Codebook()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "a list of stages is empty"),
        (["wavelet9"], "unknown scheme 'wavelet9'"),
        ([{"uniform": {"bits": 4, "bitz": 3}}], "uniform: unknown option 'bitz', expected axis"),
        ([{"uniform": {"bits": "many"}}], "uniform: bits: Input should be a valid integer"),
        ([{"uniform": {"bits": 40}}], "uniform: bits must be 2 to 16, not 40"),
        ([{"uniform": 3}], "uniform: expected options by name, found 3"),
        ([{"uniform": {"bits": 4}}, "codebook"], "uniform: ends the list of stages"),
        ([{"uniform": {}, "codebook": {}}], "a stage is a name or one name with its options"),
        ([7], "a stage is a name or one name with its options, not 7"),
    ],
)
def test_mistakes_in_stages(stages: list[object], message: str) -> None:
    with pytest.raises(SchemeError) as found:
        scheme_of(stages)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [foo]", "r:3: rules.0.settings: unknown scheme 'foo'"),
        ("stages: []", "r:3: rules.0.settings.stages"),
        ("{bits: 4, stages: [codebook]}", "r:3: rules.0.settings: bits and stages"),
    ],
)
def test_mistakes_in_recipes_name_the_line(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as found:
        settings = text if text.startswith("{") else f"{{{text}}}"
        Recipe.parse(f"version: 1\nrules:\n  - settings: {settings}\n", source="r")
    assert message in str(found.value)


def test_mistakes_in_conditions() -> None:
    for rule, message in (
        ("regex: '('", "regex '(': missing )"),
        ("min_size: 5, max_size: 4", "max_size 4 is below min_size 5"),
    ):
        with pytest.raises(SettingsError) as found:
            Recipe.parse(f"version: 1\nrules:\n  - {{{rule}, settings: {{bits: 3}}}}\n")
        assert message in str(found.value)


def test_ready_recipes_are_sound_and_come_back_from_json() -> None:
    names = [line.split()[0] for line in recipes.names().splitlines()]
    assert names
    for name in names:
        recipe = recipes.read(name)
        assert Recipe.parse(recipe.to_json()).model_dump() == recipe.model_dump()
        assert recipes.text(name).startswith("# ")


def test_schema_lists_every_scheme() -> None:
    schema = json.loads(recipes.schema())
    one = schema["$defs"]["Stage"]["anyOf"][1]["properties"]
    assert set(one) == set(SCHEMES)
    for name in SCHEMES:
        assert set(options_model(name).model_fields) <= set(one[name]["properties"])


def test_pruning_goes_on_with_the_next_stage() -> None:
    stages = [{"prune": {"sparsity": [0.5, 0.9], "block": [2, 4], "granularity": "block"}}]
    scheme = scheme_of([*stages, {"uniform": {"bits": 6}}])
    assert scheme == Prune(
        sparsity=(0.5, 0.9), granularity="block", block=(2, 4), inner=Uniform(bits=6)
    )
    properties = options_model("prune").model_json_schema()["properties"]
    assert "random" in json.dumps(properties["importance"]) and "inner" not in properties
    for options, message in [
        ({}, "prune: give exactly one of"),
        ({"keep": 1, "importance": "size"}, "prune: importance"),
    ]:
        with pytest.raises(SchemeError, match=message):
            scheme_of([{"prune": options}])


def test_a_recipe_says_scheme_and_coding() -> None:
    text = """
version: 1
default:
  stages: [{prune: {fraction: 0.08}}, {uniform: {bits: 6}}]
  coder: zero_run
  run_bits: 5
  run_coder: huffman
"""
    default = Recipe.parse(text, "r").default
    assert default.coding == Coding(coder="zero_run", run_bits=5, run_coder="huffman")
    with pytest.raises(SettingsError, match="run_bits belongs to coder zero_run"):
        Recipe.parse("version: 1\ndefault: {bits: 6, run_bits: 5}\n", "r")


def test_an_optional_rule_may_apply_to_nothing() -> None:
    text = "version: 1\nrules: [{{match: absent, optional: {}, settings: {{bits: 3}}}}]\n"
    assert Recipe.parse(text.format("true")).assign([]) == {}
    with pytest.raises(SettingsError, match="r:2: the rule matches no weight .match 'absent'."):
        Recipe.parse(text.format("false"), source="r").assign([])


def test_low_rank_factors_and_sums_as_stages() -> None:
    stages = yaml.safe_load("[{low_rank: {energy: 0.9, reshape: spatial}}, {uniform: {bits: 6}}]")
    assert scheme_of(stages) == LowRank(energy=0.9, reshape="spatial", inner=Uniform(bits=6))
    stages = yaml.safe_load("[{tucker: {ranks: [4, 3]}}, {codebook: {entries: 8}}]")
    assert scheme_of(stages) == Tucker(ranks=(4, 3), inner=Codebook(entries=8))
    stages = yaml.safe_load("[sum: {parts: [{uniform: {bits: 2}}, [{low_rank: {rank: 1}}]]}]")
    assert scheme_of(stages) == Sum(parts=(Uniform(bits=2), LowRank(rank=1)))
    with pytest.raises(SchemeError, match="low rank: the rank must be at least 0"):
        scheme_of([{"low_rank": {"rank": -1}}])
