# SPDX-License-Identifier: Apache-2.0
"""Recipes as text: YAML with the line of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from passes.errors import SettingsError, one_line

M = TypeVar("M", bound=BaseModel)

_MOST_NODES = 100_000  # of YAML, aliases written out


def read_text(path: str | Path) -> str:
    """The text of a recipe's file. Raises SettingsError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        text = error.strerror or one_line(error)
        raise SettingsError(f"{path}: cannot read the recipe: {text}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: cannot read the recipe: it is no UTF-8 text") from error


def parse_model(
    kind: type[M],
    text: str,
    source: str,
    *,
    keys: str = "the keys version and rules",
    unknown_key: Callable[[tuple[int | str, ...]], type[BaseModel]] | None = None,
) -> tuple[M, Any]:
    """Reads YAML text as a pydantic model.

    Args:
        kind: The model.
        text: The YAML.
        source: Names it in errors.
        keys: What a recipe is a mapping with, for the error where it is none.
        unknown_key: Location of an unknown key -> the model that it was given to.

    Returns:
        The model, and the root node of the YAML for `line_of`.

    Raises:
        SettingsError: naming source, line and key.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        too_large = expanded_badly(root)
        data = None if too_large else yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or one_line(error)
        raise SettingsError(f"{place}: not YAML: {problem}") from error
    except RecursionError as error:
        raise SettingsError(f"{source}: not a recipe: nested too deeply") from error
    except ValueError as error:  # a number or a date that Python does not make
        raise SettingsError(f"{source}: not YAML: {one_line(error)}") from error
    if too_large:
        raise SettingsError(f"{source}:{too_large}")
    if not isinstance(data, dict):
        raise SettingsError(f"{source}:1: a recipe is a mapping with {keys}")
    if twice := given_twice(root):
        line, key = twice
        raise SettingsError(f"{source}:{line}: key {key!r} is given twice")
    try:
        return kind.model_validate(data), root
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = in_words(first, unknown_key or (lambda location: kind))
        raise SettingsError(
            f"{source}:{line_of(root, first['loc'])}: {where}: {problem}"
        ) from error


def in_words(error: Any, unknown_key: Callable[[tuple[int | str, ...]], type[BaseModel]]) -> str:
    """What pydantic found, in the words of YAML."""
    if error["type"] == "extra_forbidden":
        kind = unknown_key(error["loc"])
        return f"unknown key, expected one of {', '.join(kind.model_fields)}"
    words = {
        "missing": "is missing",
        "tuple_type": "expected a list",
        "model_type": "expected a mapping",
        "model_attributes_type": "expected a mapping",
        "dict_type": "expected a mapping",
        "invalid_key": "expected a name",
    }
    return words.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")


def expanded_badly(root: Any) -> str | None:
    """Line and problem of aliases that stand inside of what they stand for, or that stand for more
    than any recipe has; None where all is well."""
    sizes: dict[int, int] = {}
    started = set[int]()

    def grown(node: Any) -> str | None:
        line = node.start_mark.line + 1
        if id(node) in sizes:
            return None
        if id(node) in started:
            return f"{line}: an alias stands inside of what it stands for"
        started.add(id(node))
        children: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        for child in children:
            if problem := grown(child):
                return problem
        sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
        if sizes[id(node)] > _MOST_NODES:
            return f"{line}: aliases make this more than {_MOST_NODES:,} values"
        return None

    return None if root is None else grown(root)


def given_twice(node: Any) -> tuple[int, str] | None:
    """Line and name of the first key that a mapping has twice; YAML would take the last one."""
    children: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    return key.start_mark.line + 1, key.value
                seen.add(key.value)
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    found = (given_twice(child) for child in children)
    return next((twice for twice in found if twice), None)


def line_of(node: Any, location: tuple[int | str, ...]) -> int:
    """The 1-based line of the deepest YAML node on the way to ``location``."""
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if part not in pairs:
                break
            line, node = pairs[part][0].start_mark.line + 1, pairs[part][1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return int(line)
