# SPDX-License-Identifier: Apache-2.0
"""What `toolkit passes` lists: every graph pass and every scheme, with their options."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Listed:
    """A pass or a scheme: `kind`, `name`, `summary` in one line, `options` by name as text."""

    kind: str
    name: str
    summary: str
    options: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def listed_passes() -> list[Listed]:
    """All passes of package `passes`, in the order of their names, then all schemes."""
    import onnx_ir as ir

    import passes
    from passes.stages import SCHEMES

    found = []
    for name in sorted(passes.__all__):
        kind = getattr(passes, name)
        if inspect.isclass(kind) and issubclass(kind, ir.passes.PassBase):
            found.append(Listed("pass", name, _summary(kind), _options(kind)))
    for name, scheme in sorted(SCHEMES.items()):
        found.append(Listed("scheme", name, _summary(scheme), _options(scheme)))
    return found


def _summary(kind: type) -> str:
    text = inspect.getdoc(kind) or ""
    return " ".join(text.split("\n\n")[0].split())


def _options(kind: type) -> dict[str, str]:
    options = {}
    for parameter in inspect.signature(kind).parameters.values():
        kinded = parameter.annotation
        text = kinded if isinstance(kinded, str) else inspect.formatannotation(kinded)
        if parameter.default is not inspect.Parameter.empty:
            text += f" = {parameter.default!r}"
        options[parameter.name] = text
    return options
