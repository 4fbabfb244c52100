# SPDX-License-Identifier: Apache-2.0
"""What a compression aims at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from toolkit.errors import InputError
from toolkit.fidelity import Fidelity

DEFAULT_MIN_SQNR_DB = 24.0
"""Output fidelity that is kept when nothing else is asked for, in dB."""

Kind = Literal["min_sqnr", "max_error", "target_size", "fixed"]


@dataclass(frozen=True)
class Target:
    """One aim. `value` is in dB (`min_sqnr`), a share of the largest output magnitude
    (`max_error`), or bytes of file (`target_size`); a `fixed` target has settings instead of a
    search, and its value means nothing."""

    kind: Kind
    value: float
    is_default: bool = False

    def meets_fidelity(self, fidelity: Fidelity) -> bool:
        """Whether `fidelity` is enough; sizes are not looked at."""
        if self.kind == "min_sqnr":
            return fidelity.healthy and fidelity.sqnr_db >= self.value
        if self.kind == "max_error":
            return fidelity.healthy and fidelity.max_relative_error <= self.value
        return True

    def excess(self, fidelity: Fidelity) -> float:
        """How far `fidelity` lies above the target in dB; negative where it misses."""
        if self.kind == "max_error":
            if fidelity.max_relative_error <= 0:
                return math.inf
            return 20.0 * math.log10(self.value / fidelity.max_relative_error)
        return fidelity.sqnr_db - self.value

    @property
    def text(self) -> str:
        """The aim in words."""
        if self.kind == "min_sqnr":
            default = " (default)" if self.is_default else ""
            return f"output SQNR of at least {self.value:g} dB{default}"
        if self.kind == "max_error":
            return f"largest output error of at most {self.value:g} of the output's peak"
        if self.kind == "target_size":
            return f"file of at most {int(self.value):,} bytes"
        return "given settings"


def choose_target(
    original_bytes: int,
    *,
    min_sqnr: float | None,
    max_error: float | None,
    target_ratio: float | None,
    target_size: int | None,
    fixed: bool,
) -> Target:
    """The one target that was given, or the default. Raises `InputError` for two at once and for
    values outside of their range."""
    given = {
        "--min-sqnr": min_sqnr,
        "--max-error": max_error,
        "--target-ratio": target_ratio,
        "--target-size": target_size,
    }
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise InputError(f"{named[0]} and {named[1]}: give one target only")
    for option, value in given.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{option}: expected a number above 0, found {value:g}")
    if min_sqnr is not None:
        return Target("min_sqnr", min_sqnr)
    if max_error is not None:
        return Target("max_error", max_error)
    if target_ratio is not None:
        if target_ratio <= 1:
            raise InputError(f"--target-ratio: expected a ratio above 1, found {target_ratio:g}")
        return Target("target_size", float(int(original_bytes / target_ratio)))
    if target_size is not None:
        if target_size >= original_bytes:
            raise InputError(
                f"--target-size: the model has {original_bytes:,} bytes already, "
                f"{int(target_size):,} would not be smaller"
            )
        return Target("target_size", float(target_size))
    return Target("fixed", 0.0) if fixed else Target("min_sqnr", DEFAULT_MIN_SQNR_DB, True)
