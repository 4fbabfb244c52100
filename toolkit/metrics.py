# SPDX-License-Identifier: Apache-2.0
"""A measure of quality that the user brings: `module:function`, called with a way to run the
model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from toolkit.calibration import Feed
from toolkit.errors import InputError

RunFeed = Callable[[Feed], Mapping[str, Any]]
"""Outputs by name for a mapping from input names to arrays."""


class Score(Protocol):
    """A measure of quality with its data. `text` is how it was asked for."""

    @property
    def text(self) -> str: ...

    def score(self, run: RunFeed) -> float:
        """The quality of the model behind `run`, more of which is better."""


class Metric:
    """The user's function: `function(run)` is called with a `RunFeed` and returns a number, more
    of which is better."""

    def __init__(self, text: str) -> None:
        from toolkit.calibration_callable import load_callable

        self.text = text
        self._function = load_callable(text, "--metric")

    def score(self, run: RunFeed) -> float:
        """The quality of the model behind `run`. Raises `InputError` where the function fails or
        returns anything but a finite number."""
        from toolkit.calibration_callable import USER_ERRORS, user_error

        try:
            given = self._function(run)
            if isinstance(given, str | bytes):
                raise TypeError(f"returned {given!r}, expected a number")
            found = float(given)
        except USER_ERRORS as error:  # whatever the user's function does
            raise InputError(f"--metric {self.text}: failed ({user_error(error)})") from error
        if not math.isfinite(found):
            raise InputError(f"--metric {self.text}: returned {found}, expected a finite number")
        return found


def parse_drop(text: str | float) -> tuple[float, bool]:
    """`--max-drop`: a number in the metric's own unit, or a percentage of the original's value.
    Returns the number and whether it is a share. Raises `InputError`."""
    given = str(text).strip()
    share = given.endswith("%")
    try:
        value = float(given.removesuffix("%"))
    except ValueError as error:
        raise InputError(f"--max-drop: expected a number or a percentage, found {text}") from error
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"--max-drop: expected a number above 0, found {text}")
    return (value / 100, True) if share else (value, False)
