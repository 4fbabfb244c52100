# SPDX-License-Identifier: Apache-2.0
"""Settings per weight, and recipes: rules in YAML that say which weight gets which settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, model_validator

from passes.errors import SchemeError, SettingsError
from passes.recipe_text import line_of, parse_model, read_text
from passes.schemes import Codebook, Lossless, Scheme, Trellis, Uniform
from passes.select_weights import Role, Weight
from passes.stages import check_joint, nested, scheme_of, shared_names, stages_schema
from passes.written_values import WrittenModel

SchemeName = Literal["uniform", "codebook", "lossless", "keep"]
Coder = Literal["auto", "wide", "adaptive", "huffman", "fixed", "raw", "zero_run", "sparse"]
StreamCoder = Literal["auto", "huffman", "fixed"]


class Coding(WrittenModel):
    """How integer symbols are stored.

    ``fixed`` gives each the same number of bits (vanilla indices), ``huffman`` codes by frequency.
    ``zero_run`` stores runs of zeros and the values between them, each in a stream: fields of
    ``run_bits`` (None takes the best width) under ``run_coder``, values under ``value_coder``.
    ``sparse`` keeps the decoded floats, with their indices, as an ONNX sparse initializer. ``auto``
    takes the smallest.
    """

    coder: Coder = "auto"
    run_bits: int | None = Field(default=None, ge=1, le=12)
    run_coder: StreamCoder = "auto"
    value_coder: StreamCoder = "auto"

    @model_validator(mode="after")
    def _options_of_runs(self) -> Self:
        fields = ("run_bits", "run_coder", "value_coder")
        given = [n for n in fields if getattr(self, n) not in (None, "auto")]
        if given and self.coder != "zero_run":
            raise ValueError(f"{given[0]} belongs to coder zero_run, not {self.coder}")
        return self


_OPTIONS = {"uniform": ("symmetric", "granularity", "group_size"), "codebook": ("entries",)}


class WeightSettings(Coding):
    """How one weight is compressed.

    ``uniform`` takes exactly one of ``bits`` (2 to 16), ``step`` (absolute) and ``relative_step``
    (a multiple of the root mean square); ``codebook`` takes ``entries`` (1 to 256); ``lossless``
    keeps every bit; ``keep`` leaves the weight as it is. Any other scheme, and any combination, is
    written as a list of ``stages`` (passes.stages). ``joint`` names those stages that all weights
    with these settings share: one budget (``prune``), one codebook, one cost of ranks
    (``low_rank``), one scale. ``coder`` and its options are how the integer symbols are stored.
    """

    scheme: SchemeName = "uniform"
    stages: tuple[Any, ...] | None = Field(default=None, min_length=1)
    joint: tuple[str, ...] = ()
    bits: int | None = Field(default=None, ge=2, le=16)
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    relative_step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    symmetric: bool = True
    granularity: Literal["tensor", "row", "group"] = "tensor"
    group_size: int | None = Field(default=None, ge=2)
    entries: int = Field(default=16, ge=1, le=256)

    _group: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self._check_resolution()
        try:
            if self.stages is not None or self.joint:
                scheme = self.built()
        except SchemeError as error:
            raise ValueError(str(error)) from error
        if (
            self.stages is not None
            and self.coder not in ("auto", "wide", "sparse")
            and any(isinstance(part, Trellis) for part in nested(scheme))
        ):
            raise ValueError(f"trellis goes with coder wide, not {self.coder}")
        if self.joint:
            try:
                check_joint(scheme, self.joint)
            except SchemeError as error:
                raise ValueError(f"joint: {error}") from error
        return self

    def _check_resolution(self) -> None:
        given = [n for n in ("bits", "step", "relative_step") if getattr(self, n) is not None]
        if self.stages is not None:
            others = sorted(self.model_fields_set - {"stages", "joint", *Coding.model_fields})
            if others:
                raise ValueError(f"{others[0]} and stages: give only one of them")
            return
        if self.scheme == "uniform" and len(given) != 1:
            found = "none" if not given else " and ".join(given)
            raise ValueError(
                f"uniform needs exactly one of bits, step and relative_step, not {found}"
            )
        if self.scheme != "uniform" and given:
            raise ValueError(f"{given[0]} belongs to scheme uniform, not {self.scheme}")
        changed = {
            n for n, f in WeightSettings.model_fields.items() if getattr(self, n) != f.default
        }
        for scheme, options in _OPTIONS.items():
            for name in options:
                if name in changed and self.scheme != scheme:
                    raise ValueError(f"{name} belongs to scheme {scheme}, not {self.scheme}")
        if self.group_size is not None and self.granularity != "group":
            raise ValueError(f"group_size belongs to granularity group, not {self.granularity}")

    def built(self) -> Scheme:
        """The scheme; SchemeError for ``keep``, which is none."""
        if self.stages is not None:
            return scheme_of(self.stages)
        if self.scheme == "keep":
            raise SchemeError("scheme keep fits nothing")
        if self.scheme == "lossless":
            return Lossless()
        if self.scheme == "codebook":
            return Codebook(entries=self.entries)
        return Uniform(
            bits=self.bits,
            step=self.step,
            relative_step=self.relative_step,
            symmetric=self.symmetric,
            granularity=self.granularity,
            group_size=self.group_size,
        )

    @property
    def group_key(self) -> tuple[str, str]:
        """Equal for settings whose weights are fitted together."""
        return self._group, self.model_dump_json()

    def of_group(self, group: str) -> WeightSettings:
        """The same settings, for the weights of one rule; what is not joint has no groups."""
        if not self.joint:
            return self
        copy = self.model_copy()
        copy._group = group
        return copy

    @property
    def coding(self) -> Coding:
        """How the symbols are stored."""
        return Coding(**{name: getattr(self, name) for name in Coding.model_fields})


class Rule(WrittenModel):
    """Settings for the weights that fulfil every condition given.

    ``match`` is a glob and ``regex`` a regular expression on the weight's whole name, ``node`` and
    ``node_regex`` likewise on the name of a node that uses it, ``op_type`` an operator that uses
    it, ``role`` what it is, ``min_size`` and ``max_size`` numbers of elements. A rule that applies
    to no weight is an error, unless it is ``optional``.
    """

    match: str = "*"
    regex: str | None = None
    node: str | None = None
    node_regex: str | None = None
    op_type: str | None = None
    role: Role | None = None
    min_size: int = Field(default=0, ge=0)
    max_size: int | None = Field(default=None, ge=0)
    optional: bool = False
    settings: WeightSettings

    @property
    def conditions(self) -> str:
        """The conditions given, in words."""
        given = self.model_dump(exclude={"settings", "optional"}, exclude_defaults=True)
        return ", ".join(f"{key} {value!r}" for key, value in given.items()) or "match '*'"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name in ("regex", "node_regex"):
            pattern = getattr(self, name)
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise ValueError(f"{name} {pattern!r}: {error}") from error
        if self.max_size is not None and self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        return self

    def applies(self, weight: Weight) -> bool:
        """Whether ``weight`` fulfils every condition."""
        return (
            fnmatchcase(weight.name, self.match)
            and (self.regex is None or re.fullmatch(self.regex, weight.name) is not None)
            and (self.node is None or any(fnmatchcase(n, self.node) for n in weight.nodes))
            and (
                self.node_regex is None
                or any(re.fullmatch(self.node_regex, n) for n in weight.nodes)
            )
            and (self.op_type is None or self.op_type in weight.op_types)
            and (self.role is None or self.role == weight.role)
            and weight.num_elements >= self.min_size
            and (self.max_size is None or weight.num_elements <= self.max_size)
        )


class Recipe(WrittenModel):
    """An ordered list of rules; the first that applies decides.

    A weight that no rule names gets ``default``, an already quantised one (role ``integer``) is
    coded losslessly and a ``minor`` one gets ``minor``.
    """

    version: Literal[1]
    rules: tuple[Rule, ...] = ()
    default: WeightSettings = WeightSettings(scheme="uniform", bits=8)
    minor: WeightSettings = WeightSettings(scheme="keep")

    _source: str = PrivateAttr(default="recipe")
    _lines: tuple[int, ...] = PrivateAttr(default=())

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Reads a YAML file; SettingsError names the file and the line of what is wrong."""
        return cls.parse(read_text(path), source=str(path))

    @classmethod
    def parse(cls, text: str, source: str = "recipe") -> Recipe:
        """Reads YAML text; ``source`` names it in errors."""
        recipe, root = parse_model(cls, text, source, unknown_key=_settings_of_key)
        recipe._source = source
        recipe._lines = tuple(line_of(root, ("rules", i)) for i in range(len(recipe.rules)))
        return recipe

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of a recipe, with the options of every scheme."""
        return with_stages(cls.model_json_schema())

    def to_json(self) -> str:
        """The recipe in short: parse() reads it back."""
        return self.model_dump_json(exclude_defaults=True)

    def assign(self, weights: Iterable[Weight]) -> dict[str, WeightSettings]:
        """Settings for every weight by name; SettingsError for a rule that applies to none of them,
        or to those only that rules before it take."""
        listed = left = list(weights)
        for index, rule in enumerate(self.rules):
            if not (rule.optional or any(rule.applies(weight) for weight in left)):
                line = (
                    f":{self._lines[index]}" if index < len(self._lines) else f", rule {index + 1}"
                )
                taken = any(rule.applies(weight) for weight in listed)
                problem = "comes after rules that take all of its weights" if taken else ""
                raise SettingsError(
                    f"{self._source}{line}: the rule {problem or 'matches no weight'} "
                    f"({rule.conditions})"
                )
            left = [weight for weight in left if not rule.applies(weight)]
        return {weight.name: self._settings_of(weight) for weight in listed}

    def _settings_of(self, weight: Weight) -> WeightSettings:
        for index, rule in enumerate(self.rules):
            if rule.applies(weight):
                return rule.settings.of_group(f"rule {index + 1}")
        if weight.role == "integer":
            return WeightSettings(scheme="lossless")
        group = "minor" if weight.role == "minor" else "default"
        return (self.minor if group == "minor" else self.default).of_group(group)


def _settings_of_key(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that an unknown key was given to."""
    models: dict[int, type[BaseModel]] = {1: Recipe, 3: Rule}
    return models.get(len(location), WeightSettings)


def with_stages(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema in whose ``$defs`` weights have settings, with the options of every scheme that
    their stages may name. Is changed, and returned."""
    stages = stages_schema()
    schema["$defs"] |= stages.pop("$defs")
    settings = schema["$defs"]["WeightSettings"]["properties"]
    settings["stages"] = {"anyOf": [stages, {"type": "null"}], "default": None}
    settings["joint"]["items"] = {"type": "string", "enum": shared_names()}
    return schema
