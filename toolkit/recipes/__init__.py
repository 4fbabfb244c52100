# SPDX-License-Identifier: Apache-2.0
"""Ready recipes: one YAML file for each published method. Their first line says what they are."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError, one_line

if TYPE_CHECKING:
    import os

    from passes.settings import Recipe


def names() -> str:
    """A line for each ready recipe: its name and its first comment."""
    lines = []
    for name, content in sorted(_texts().items()):
        lines.append(f"{name:24} {content.splitlines()[0].lstrip('# ')}")
    return "\n".join(lines)


def text(name: str) -> str:
    """The YAML of a ready recipe. Raises `InputError` with the names there are."""
    found = _texts()
    if name not in found:
        raise InputError(f"no ready recipe {name!r}, there are {', '.join(sorted(found))}")
    return found[name]


def schema() -> str:
    """The JSON Schema of recipes."""
    from passes.settings import Recipe

    return json.dumps(Recipe.json_schema(), indent=2)


def read(given: str | os.PathLike[str]) -> Recipe:
    """The recipe in a file or, where there is no such file, the ready one of that name.

    Raises SettingsError naming file and line, `InputError` where there is neither.
    """
    from passes.settings import Recipe

    path = Path(given)
    if not path.exists() and path.name == str(given) and not path.suffix:
        return Recipe.parse(text(str(given)), source=f"recipe {given}")
    return Recipe.read(path)


def read_schemes(path: str | os.PathLike[str]) -> list[tuple[Any, ...]]:
    """Lists of stages from a YAML file. Raises `InputError` naming the file."""
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {one_line(error)}") from error
    if not isinstance(found, list) or not all(isinstance(stages, list) for stages in found):
        raise InputError(f"{path}: expected a list of lists of stages")
    return [tuple(stages) for stages in found]


def _texts() -> dict[str, str]:
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in files(__name__).iterdir()
        if file.name.endswith(".yaml")
    }
