# SPDX-License-Identifier: Apache-2.0
"""Training recipes: model, data, methods, compressed forms and the run, in one YAML file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from passes.errors import SettingsError
from passes.recipe_text import in_words, parse_model, read_text
from passes.settings import Recipe, with_stages
from toolkit import recipes
from toolkit.errors import InputError
from toolkit.train.method_specs import MethodSpec
from toolkit.train.named_sources import Source
from toolkit.train.train_settings import TrainSettings


class TargetOptions(BaseModel):
    """What is to be reached: ``size`` in bytes of all parameters, or ``max_drop`` of the metric
    below ``baseline`` (by default that of the model with its weights, before training).

    ``search`` names the number in the recipe that is found by bisection between ``low`` and
    ``high``, for example ``methods.0.lc.rules.0.settings.stages.0.prune.fraction``. Without it the
    multiplier of an entropy penalty is steered during the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int | None = Field(default=None, gt=0)
    max_drop: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    baseline: float | None = None
    search: str | None = None
    low: float | None = None
    high: float | None = None
    runs: int = Field(default=8, ge=2)
    larger_is_smaller: bool = True

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.size is not None and self.max_drop is not None:
            raise ValueError("give one of size and max_drop")
        if self.search is not None and (self.low is None or self.high is None):
            raise ValueError("search needs low and high")
        return self


class TrainRecipe(TrainSettings):
    """A whole run. What `TrainSettings` has stands beside the rest.

    ``compress`` is a recipe of `toolkit compress`, or the name of a ready one, by which weights get
    their compressed forms; ``methods`` act in their order. ``remove_dead_units`` takes units
    without inputs or outputs out of what was trained, a chain of dense layers and convolutions.
    """

    version: Literal[1]
    model: Source
    data: Source
    batch_size: int = Field(default=128, ge=1)
    compress: Recipe | None = None
    methods: tuple[MethodSpec, ...] = ()
    remove_dead_units: bool = False
    target: TargetOptions | None = None

    @field_validator("compress", mode="before")
    @classmethod
    def _ready(cls, given: Any) -> Any:
        return recipes.read(given) if isinstance(given, str) else given

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of a training recipe, with the options of every method and scheme."""
        schema = with_stages(cls.model_json_schema())
        given = schema["properties"]["compress"]
        given["anyOf"] = [{"type": "string"}, *given["anyOf"]]
        return schema

    @property
    def settings(self) -> TrainSettings:
        """The settings of the run alone."""
        values = {name: getattr(self, name) for name in TrainSettings.model_fields}
        return TrainSettings(**values)


class RecipeText:
    """A training recipe as it was written, to be changed and read again.

    Raises SettingsError, naming file and line, for what is wrong.
    """

    def __init__(self, text: str, source: str = "recipe") -> None:
        self.source = source
        self.recipe, _ = parse_model(
            TrainRecipe,
            text,
            source,
            keys="the keys version, model and data",
            unknown_key=model_at,
        )
        self.data: dict[str, Any] = yaml.safe_load(text)

    @classmethod
    def read(cls, path: str | Path) -> RecipeText:
        """Reads a YAML file."""
        return cls(read_text(path), str(path))

    def with_values(self, changes: Mapping[str, Any]) -> TrainRecipe:
        """The recipe with other values at places such as ``methods.0.lc.mu``; a place ending in
        ``+`` gets one more entry. Raises InputError where there is no such place."""
        data = copy.deepcopy(self.data)
        for place, value in changes.items():
            _put(data, place, value)
        try:
            return TrainRecipe.model_validate(data)
        except ValueError as error:
            errors = getattr(error, "errors", None)
            if errors is None:
                raise
            first = errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"{self.source}: {where}: {in_words(first, model_at)}") from error


def _put(data: Any, place: str, value: Any) -> None:
    *parents, last = place.split(".")
    node = data
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if last == "+":
            node.append(value)
        elif isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"target: the recipe has no place {place!r}") from error


def model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that an unknown key at ``location`` was given to."""
    kind: type[BaseModel] = TrainRecipe
    for part in location[:-1]:
        if isinstance(part, str) and part in kind.model_fields:
            found = _inner_model(kind.model_fields[part].annotation)
            kind = kind if found is None else found
    return kind


def _inner_model(hint: Any) -> type[BaseModel] | None:
    """The model in a type such as ``Model | None`` or ``tuple[Model, ...]``."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((m for part in get_args(hint) if (m := _inner_model(part)) is not None), None)
