# SPDX-License-Identifier: Apache-2.0
"""Values of recipes as they are written: true is no number, and a number is neither true nor false.

pydantic would turn one into the other. Text stays a way to write a number, since YAML reads 1e-3 as
text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class WrittenModel(BaseModel):
    """A pydantic model that refuses unknown keys, and what is only nearly of a field's type."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if Any in kinds:
            return value
        for scalar in _scalars(value):
            if isinstance(scalar, bool) and bool not in kinds and kinds & {int, float}:
                text = f"expected a number, found {str(scalar).lower()}"
                raise PydanticCustomError("as_written", "{text}", {"text": text})
            if type(scalar) in (int, float) and bool in kinds and not kinds & {int, float}:
                text = f"expected true or false, found {scalar}"
                raise PydanticCustomError("as_written", "{text}", {"text": text})
        return value


def _kinds(hint: Any) -> set[Any]:
    """The plain types that a type is made of."""
    if get_origin(hint) is Literal:
        return {type(choice) for choice in get_args(hint)}
    parts = get_args(hint)
    return {hint}.union(*map(_kinds, parts)) if parts else {hint}


def _scalars(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _scalars(part)
    else:
        yield value
