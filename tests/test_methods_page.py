# SPDX-License-Identifier: Apache-2.0
"""docs/METHODS.md names what there is: recipes, tests, networks, commands."""

from __future__ import annotations

import ast
import functools
import importlib.util
import shlex
from pathlib import Path

import click
import pytest

from models.zoo import NAMES
from tests.methods_page import PAGE, Method, methods, trained_methods
from toolkit import recipes
from toolkit.cli import main

TESTS = Path(__file__).parent
ALL, TRAINED = methods(), trained_methods()


@functools.cache
def functions(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_titles_are_told_apart() -> None:
    titles = [method.title for method in (*ALL, *TRAINED)]
    assert len(set(titles)) == len(titles) and len(ALL) > 80 and len(TRAINED) > 40


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.title)
def test_a_line_names_what_there_is(method: Method) -> None:
    assert len(method.networks) >= 2 and set(method.networks) <= set(NAMES)
    assert method.tests
    for test in method.tests:
        file, _, function = test.partition("::")
        assert (TESTS / file).exists(), test
        assert not function or function in functions(file), test
    if method.is_recipe:
        method.read()
    elif method.recipe.startswith("toolkit "):
        _, name, *options = shlex.split(method.recipe)
        command = main.commands[name]
        known = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        assert {option for option in options if option.startswith("--")} <= known
    else:
        assert "in Python" in next(line for line in page() if method.title in line)


def page() -> list[str]:
    return PAGE.read_text(encoding="utf-8").splitlines()


def test_every_ready_recipe_has_a_line() -> None:
    ready = {line.split()[0] for line in recipes.names().splitlines()}
    assert ready == {m.recipe for m in ALL if m.is_recipe and not m.recipe.startswith("{")}


@pytest.mark.parametrize("method", TRAINED, ids=lambda m: m.title)
def test_what_learns_is_named_and_proved(method: Method) -> None:
    assert method.tests
    for test in method.tests:
        file, _, function = test.partition("::")
        assert function in functions(file), test
    if method.recipe.startswith("toolkit "):
        _, name, *options = shlex.split(method.recipe)
        params = main.commands[name].params
        known = {o for p in params if isinstance(p, click.Option) for o in p.opts}
        assert set(options) <= known
        return
    package, _, name = method.recipe.rpartition(".")
    if package == "models":
        assert importlib.util.find_spec(method.recipe) is not None
    else:
        assert name in importlib.import_module(package).__all__
