# SPDX-License-Identifier: Apache-2.0
"""Schemes by name: a list of stages, as a recipe writes it, becomes one nested scheme.

A stage is a name, or a name with options: ``[{prune: {fraction: 0.9}}, {uniform: {bits: 6}}]``.
Each stage works on what the stages before it leave; the last one makes the symbols.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

from passes.errors import SchemeError
from passes.schemes import (
    AutoTransform,
    Binary,
    Codebook,
    Compensated,
    CompensatedTrellis,
    CosineRows,
    FixedPoint,
    Latent,
    LearnedPoints,
    Lossless,
    LowRank,
    Points,
    PowerOfTwo,
    Prune,
    RateAware,
    RateDistortion,
    Scaled,
    Scheme,
    Sum,
    Ternary,
    Transform,
    Trellis,
    Tucker,
    Uniform,
    factorize_jointly,
)
from passes.schemes.joint_fit import SHARED
from passes.written_values import WrittenModel

SCHEMES: dict[str, type] = {
    "uniform": Uniform,
    "scaled": Scaled,
    "fixed_point": FixedPoint,
    "power_of_two": PowerOfTwo,
    "binary": Binary,
    "ternary": Ternary,
    "trellis": Trellis,
    "rate_distortion": RateDistortion,
    "rate_aware": RateAware,
    "compensated": Compensated,
    "compensated_trellis": CompensatedTrellis,
    "codebook": Codebook,
    "points": Points,
    "lossless": Lossless,
    "low_rank": LowRank,
    "tucker": Tucker,
    "transform": Transform,
    "auto_transform": AutoTransform,
    "cosine_rows": CosineRows,
    "latent": Latent,
    "learned_points": LearnedPoints,
    "sum": Sum,
    "prune": Prune,
}
"""Every scheme that a stage can name. Those with a field ``inner`` go on with the next stage, those
with ``parts`` take lists of stages."""

_COMPOSED = ("inner", "parts")
_OF_EACH = ("low_rank", "tucker", "auto_transform")  # fit their inner scheme several times


def scheme_of(stages: Sequence[Any]) -> Scheme:
    """The nested scheme of a list of stages.

    Raises:
        SchemeError: an unknown scheme, unknown or wrong options, or a stage behind the last one.
    """
    if not stages:
        raise SchemeError("a list of stages is empty")
    built: Any = None
    for stage in reversed(stages):
        name, options = _stage(stage)
        kind = SCHEMES[name]
        fields = {field.name for field in dataclasses.fields(kind)}
        composed = {key: options.pop(key) for key in _COMPOSED if key in options}
        values = _validated(name, options)
        if "parts" in fields:
            parts = composed.pop("parts", None)
            if not isinstance(parts, list | tuple) or not parts:
                raise SchemeError(f"{name}: parts: expected lists of stages")
            values["parts"] = tuple(
                scheme_of(part if isinstance(part, list | tuple) else [part]) for part in parts
            )
        if composed:
            raise SchemeError(f"{name}: {next(iter(composed))}: write a stage behind it instead")
        if "inner" in fields:
            if built is not None:
                values["inner"] = built
        elif built is not None:
            raise SchemeError(f"{name}: ends the list of stages, nothing can follow it")
        built = kind(**values)
    scheme: Scheme = built
    return scheme


def nested(scheme: Any) -> Iterator[Scheme]:
    """The scheme, its inner schemes and the parts of sums."""
    yield scheme
    for part in (getattr(scheme, "inner", None), *getattr(scheme, "parts", ())):
        if part is not None:
            yield from nested(part)


def shared_names() -> list[str]:
    """The stages that several weights can share."""
    return [name for name, kind in SCHEMES.items() if issubclass(kind, SHARED)]


def check_joint(scheme: Scheme, names: Sequence[str]) -> None:
    """SchemeError for names of stages that several weights cannot share in ``scheme``."""
    known, stages, around = shared_names(), dict[str, Any](), ""
    current: Any = scheme
    while current is not None:
        name = next(name for name, kind in SCHEMES.items() if type(current) is kind)
        if name in names and around:
            raise SchemeError(f"{name} stands behind {around}, whose parts are of each weight")
        around = name if name in _OF_EACH else around
        stages[name], current = current, getattr(current, "inner", None)
    for name in names:
        if name not in known:
            raise SchemeError(f"{name!r} cannot be shared, expected some of {', '.join(known)}")
        if name not in stages:
            raise SchemeError(f"{name} is no stage here, there are {', '.join(stages)}")
        if getattr(stages[name], "granularity", "tensor") != "tensor" and name != "prune":
            raise SchemeError(f"{name} with one scale for all weights takes no granularity")
        if isinstance(stages[name], LowRank):
            factorize_jointly({}, stages[name])


@cache
def options_model(name: str) -> type[BaseModel]:
    """The options of scheme ``name`` as a pydantic model: their types, and its JSON Schema."""
    kind = SCHEMES[name]
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in _COMPOSED:
            continue
        default: Any = field.default
        if default is dataclasses.MISSING:
            default = ...
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        given[field.name] = (_written(hints[field.name]), default)
    return create_model(name, __base__=WrittenModel, __doc__=kind.__doc__, **given)


def _written(hint: Any) -> Any:
    """A type without the functions that only Python can give."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kept = tuple(kind for kind in get_args(hint) if get_origin(kind) is not Callable)
    return Union[kept]  # noqa: UP007


def stages_schema() -> dict[str, Any]:
    """The JSON Schema of a list of stages."""
    names = {"type": "string", "enum": sorted(SCHEMES)}
    stages = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Stage"}}
    kinds: dict[str, Any] = {}
    for name, kind in sorted(SCHEMES.items()):
        options = options_model(name).model_json_schema()
        options.pop("title", None)
        if "parts" in {field.name for field in dataclasses.fields(kind)}:
            options.setdefault("properties", {})["parts"] = {"type": "array", "items": stages}
        kinds[name] = options
    one = {
        "type": "object",
        "properties": kinds,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {**stages, "$defs": {"Stage": {"anyOf": [names, one]}}}


def _stage(stage: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(stage, str):
        name, options = stage, dict[str, Any]()
    elif isinstance(stage, Mapping) and len(stage) == 1:
        name, options = next(iter(stage.items()))
        if options is None:
            options = {}
    else:
        raise SchemeError(f"a stage is a name or one name with its options, not {stage!r}")
    if name not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise SchemeError(f"unknown scheme {name!r}, expected one of {known}")
    if not isinstance(options, Mapping):
        raise SchemeError(f"{name}: expected options by name, found {options!r}")
    for key in options:
        if key not in options_model(name).model_fields and key not in _COMPOSED:
            known = ", ".join(sorted(options_model(name).model_fields)) or "none"
            raise SchemeError(f"{name}: unknown option {key!r}, expected {known}")
    return name, dict(options)


def _validated(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        model = options_model(name)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SchemeError(f"{name}: {where}: {first['msg']}") from error
    return {key: getattr(model, key) for key in options}
