# SPDX-License-Identifier: Apache-2.0
"""What a compression aims at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from toolkit.errors import InputError
from toolkit.fidelity import Fidelity
from toolkit.metrics import parse_drop

DEFAULT_MIN_SQNR_DB = 24.0
"""Output fidelity that is kept when nothing else is asked for, in dB."""

Kind = Literal["min_sqnr", "max_error", "min_agreement", "max_drop", "target_size", "fixed"]


@dataclass(frozen=True)
class Target:
    """One aim. `value` is in dB (`min_sqnr`), a share of the largest output magnitude
    (`max_error`), a share of equal winners of the last axis (`min_agreement`), how much the user's
    metric may fall below `baseline`, the original's (`max_drop`; `is_share` where that is meant as
    a share of it), or bytes of file (`target_size`); a `fixed` target has settings instead of a
    search, and its value means nothing."""

    kind: Kind
    value: float
    is_default: bool = False
    baseline: float = 0.0
    is_share: bool = False

    def with_baseline(self, baseline: float) -> Target:
        """The same aim where the original's metric is known. Raises `InputError` for a share of
        nothing."""
        if self.is_share and baseline == 0:
            raise InputError(
                "--max-drop: the original's metric is 0, of which there is no share; give a number "
                "in the metric's unit, or other data"
            )
        value = self.value * abs(baseline) if self.is_share else self.value
        return replace(self, value=value, baseline=baseline, is_share=False)

    @property
    def needs_health(self) -> bool:
        """Whether no slice of an output may be dead, whatever the figure says."""
        return self.kind in ("min_sqnr", "max_error")

    def meets_fidelity(self, fidelity: Fidelity) -> bool:
        """Whether `fidelity` is enough; sizes are not looked at."""
        if self.kind == "min_sqnr":
            return fidelity.healthy and fidelity.sqnr_db >= self.value
        if self.kind == "max_error":
            return fidelity.healthy and fidelity.max_relative_error <= self.value
        if self.kind == "min_agreement":
            return (fidelity.top1_agreement or 0.0) >= self.value
        if self.kind == "max_drop":
            return fidelity.score is not None and fidelity.score >= self.baseline - self.value
        return True

    def excess(self, fidelity: Fidelity) -> float:
        """How far `fidelity` lies above the target in dB; negative where it misses."""
        if self.kind == "max_error":
            if fidelity.max_relative_error <= 0:
                return math.inf
            return 20.0 * math.log10(self.value / fidelity.max_relative_error)
        if self.kind == "min_agreement":
            return _loss_db(1.0 - self.value, 1.0 - (fidelity.top1_agreement or 0.0))
        if self.kind == "max_drop":
            score = -math.inf if fidelity.score is None else fidelity.score
            return _loss_db(self.value, self.baseline - score)
        return fidelity.sqnr_db - self.value

    @property
    def text(self) -> str:
        """The aim in words."""
        if self.kind == "min_sqnr":
            default = " (default)" if self.is_default else ""
            return f"output SQNR of at least {self.value:g} dB{default}"
        if self.kind == "max_error":
            return f"largest output error of at most {self.value:g} of the output's peak"
        if self.kind == "min_agreement":
            return f"the same top-1 result in at least {self.value:.4g} of the cases"
        if self.kind == "max_drop":
            least = self.baseline - self.value
            return f"metric of at least {least:.6g}, {self.value:.3g} below the original's"
        if self.kind == "target_size":
            return f"file of at most {int(self.value):,} bytes"
        return "given settings"


def _loss_db(allowed: float, lost: float) -> float:
    """How far a loss that grows as noise power does lies below the one allowed, in dB."""
    if lost <= 0:
        return math.inf
    return 10.0 * math.log10(max(allowed, 1e-12) / lost) if math.isfinite(lost) else -math.inf


def choose_target(
    original_bytes: int,
    *,
    min_sqnr: float | None,
    max_error: float | None,
    min_agreement: float | None = None,
    max_drop: str | float | None = None,
    target_ratio: float | None,
    target_size: int | None,
    fixed: bool,
) -> Target:
    """The one target that was given, or the default. Raises `InputError` for two at once and for
    values outside of their range."""
    drop, is_share = (None, False) if max_drop is None else parse_drop(max_drop)
    given = {
        "--min-sqnr": min_sqnr,
        "--max-error": max_error,
        "--min-agreement": min_agreement,
        "--max-drop": drop,
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
    if min_agreement is not None:
        if min_agreement > 1:
            raise InputError(f"--min-agreement: expected a share up to 1, found {min_agreement:g}")
        return Target("min_agreement", min_agreement)
    if drop is not None:
        return Target("max_drop", drop, is_share=is_share)
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
