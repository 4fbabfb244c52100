# SPDX-License-Identifier: Apache-2.0
"""Reads the tables of docs/METHODS.md: methods, their recipes, tests and networks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from passes import Recipe
from toolkit import recipes

PAGE = Path(__file__).parent.parent / "docs" / "METHODS.md"


@dataclass(frozen=True)
class Method:
    """A line of a table. `recipe` is a recipe, a command or a name in Python; `tests` are `file.py`
    or `file.py::function`, `networks` names of the zoo, none for what learns while training."""

    title: str
    recipe: str
    tests: tuple[str, ...]
    networks: tuple[str, ...]

    @property
    def is_recipe(self) -> bool:
        """Whether `recipe` is one, and no command or Python."""
        return self.recipe.startswith("{") or re.fullmatch(r"[a-z0-9-]+", self.recipe) is not None

    def read(self) -> Recipe:
        """The recipe; settings alone are those of its default."""
        if not self.recipe.startswith("{"):
            return recipes.read(self.recipe)
        given = yaml.safe_load(self.recipe)
        whole = given if {"rules", "default"} & set(given) else {"default": given}
        return Recipe.parse(yaml.safe_dump({"version": 1, **whole}), self.title)


def methods() -> list[Method]:
    """The lines of recipes that need no training, in their order."""
    return [method for method in _lines() if method.networks]


def trained_methods() -> list[Method]:
    """The lines of what learns while it compresses."""
    return [method for method in _lines() if not method.networks]


def _lines() -> list[Method]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or cells[0] in ("method", "while training", "---"):
            continue
        title, recipe, tests, *rest = cells
        networks = rest[0] if rest else ""
        found.append(
            Method(
                title,
                recipe.split("`")[1],
                tuple(re.findall(r"`([^`]+)`", tests)),
                tuple(name.strip() for name in networks.split(",") if name.strip()),
            )
        )
    return found
