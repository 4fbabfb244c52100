# SPDX-License-Identifier: Apache-2.0
"""Rules of recipes, applied to the parameters of a torch model by methods that fit them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from passes.errors import SettingsError
from passes.settings import Recipe, Rule, WeightSettings
from toolkit.errors import InputError
from toolkit.nn.wrapping import weights_of
from toolkit.train.compressions import Compression


def settings_of(model: nn.Module, rules: Sequence[Rule], where: str) -> dict[str, WeightSettings]:
    """Parameter name -> settings of the first rule that applies; the others are left out.

    Raises InputError for a rule that applies to nothing.
    """
    keep = WeightSettings(scheme="keep")
    recipe = Recipe(version=1, rules=tuple(rules), default=keep, minor=keep)
    try:
        assigned = recipe.assign(weights_of(model))
    except SettingsError as error:
        raise InputError(f"{where}: {str(error).removeprefix('recipe, ')}") from error
    return {name: settings for name, settings in assigned.items() if settings.scheme != "keep"}


def compressions_of(model: nn.Module, rules: Sequence[Rule], where: str) -> dict[str, Compression]:
    """Parameter name -> compression; joint ones of a rule are the same object."""
    groups: dict[tuple[str, str], Compression] = {}
    found = {}
    for name, settings in settings_of(model, rules, where).items():
        made = Compression(settings.built(), settings.joint)
        found[name] = groups.setdefault(settings.group_key, made) if settings.joint else made
    return found
