# SPDX-License-Identifier: Apache-2.0
"""What a caller of `compress` gives as settings, turned into settings of every weight."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError

if TYPE_CHECKING:
    from passes.settings import Recipe, WeightSettings
    from toolkit.pipeline import Source

METADATA_KEY = "toolkit.settings"
"""The entry of a compressed model's metadata that holds `GivenSettings.metadata`."""
MAX_METADATA = 1024
"""Characters of a recipe that a file holds itself."""


@dataclass(frozen=True)
class GivenSettings:
    """At most one of a recipe (named or read from `source`), `bits`, and `lossless`."""

    recipe: Recipe | None
    source: str | None
    bits: int | None
    lossless: bool

    @property
    def searching(self) -> bool:
        """Whether a search decides about what no recipe names."""
        return not (self.bits or self.lossless)

    @property
    def keeps_bits(self) -> bool:
        """Whether no bit of any weight may change."""
        if self.recipe is None:
            return self.lossless
        rules = [rule.settings for rule in self.recipe.rules]
        schemes = {how.scheme for how in (*rules, self.recipe.default, self.recipe.minor)}
        return schemes <= {"lossless", "keep"}

    def label(self) -> dict[str, Any]:
        """The settings in plain values: whoever has them can repeat the run."""
        if self.lossless:
            return {"scheme": "lossless"}
        if self.bits is not None:
            return {"scheme": "uniform", "bits": self.bits}
        if self.recipe is not None:
            return {"recipe": json.loads(self.recipe.to_json())}
        return {"scheme": "uniform", "steps": "found by search"}

    def metadata(self) -> str:
        """`label` in short, for the file: of a long recipe, as one with a rule for each weight, its
        hash, for which the report has the recipe itself."""
        text = json.dumps(self.label(), separators=(",", ":"))
        if self.recipe is None or len(text) <= MAX_METADATA:
            return text
        digest = hashlib.sha256(self.recipe.to_json().encode()).hexdigest()
        return json.dumps({"recipe_sha256": digest}, separators=(",", ":"))

    def assign(self, source: Source, fixed: bool) -> dict[str, WeightSettings | None]:
        """Settings of every weight; None for those that the search decides, of which there are none
        where `fixed`. Raises `InputError` for a rule that matches nothing."""
        from passes.errors import SettingsError
        from passes.settings import WeightSettings

        keep, exact = WeightSettings(scheme="keep"), WeightSettings(scheme="lossless")
        settings: dict[str, WeightSettings | None] = {}
        if self.recipe is not None:
            try:
                assigned = self.recipe.assign(source.weights.values())
            except SettingsError as error:
                more = f"; {source.stored_once}" if source.merged else ""
                raise InputError(f"{error}{more}") from error
            for name, weight in source.weights.items():
                ruled = fixed or any(rule.applies(weight) for rule in self.recipe.rules)
                settings[name] = assigned[name] if ruled or weight.role == "integer" else None
        else:
            for name, weight in source.weights.items():
                if self.lossless or weight.role == "integer":
                    settings[name] = exact
                elif weight.role == "minor":
                    settings[name] = keep if self.bits else None
                else:
                    settings[name] = WeightSettings(bits=self.bits) if self.bits else None
        for name in source.odd:
            settings[name] = exact
        return settings


def given_settings(
    recipe: str | os.PathLike[str] | Recipe | None, bits: int | None, lossless: bool
) -> GivenSettings:
    """Checks the options and reads the recipe. Raises `InputError`."""
    options = {
        "--bits": bits is not None,
        "--lossless": lossless,
        "--recipe": recipe is not None,
    }
    given = [name for name, on in options.items() if on]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]}: give only one of them")
    if bits is not None and not 2 <= bits <= 16:
        raise InputError(f"--bits: expected 2 to 16, found {bits}")
    if not isinstance(recipe, str | os.PathLike):
        return GivenSettings(recipe, None, bits, lossless)
    from passes.errors import SettingsError
    from toolkit.recipes import read

    try:
        return GivenSettings(read(recipe), os.fspath(recipe), bits, lossless)
    except SettingsError as error:
        raise InputError(str(error)) from error
