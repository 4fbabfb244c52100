# SPDX-License-Identifier: Apache-2.0
"""What a scan measures: one weight under one list of stages, alone in the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passes.select_weights import Weight
    from toolkit.prepare_model import Prepared

Stages = tuple[Any, ...]


@dataclass(frozen=True)
class ScanPoint:
    """One weight under one scheme: `num_bytes` estimated, `weight_sqnr_db` of its values,
    `sqnr_db` of the worst output with this weight alone changed; `problem` where it cannot be
    fitted."""

    weight: str
    scheme: str
    stages: Stages
    num_bytes: float
    weight_sqnr_db: float
    sqnr_db: float
    healthy: bool = True
    problem: str = ""


def noise_of(point: ScanPoint) -> float:
    """Noise power in the worst output, as a share of the signal's."""
    if math.isinf(point.sqnr_db):
        return 0.0 if point.sqnr_db > 0 else math.inf
    return float(10 ** (-point.sqnr_db / 10))


def decibel(noise: float) -> float:
    """A share of noise as a signal-to-noise ratio."""
    return -10 * math.log10(noise) if noise > 0 else math.inf


def measured(weight: Weight, stages: Stages, prepared: Prepared) -> ScanPoint:
    """One weight under one list of stages."""
    from passes.errors import SchemeError
    from passes.schemes import FitContext
    from passes.stages import scheme_of

    array = weight.array()
    point = ScanPoint(weight.name, stages_text(stages), stages, math.inf, -math.inf, -math.inf)
    try:
        context = FitContext(channel_axis=weight.channel_axis)
        fitted = scheme_of(stages).fit(array, context)
    except SchemeError as error:
        return replace(point, problem=str(error))
    value = fitted.decode()
    fidelity = prepared.fidelity_with({weight.name: value})
    return replace(
        point,
        num_bytes=fitted.bits() / 8,
        weight_sqnr_db=_sqnr(array, value),
        sqnr_db=fidelity.sqnr_db,
        healthy=fidelity.healthy,
    )


def _sqnr(before: Any, after: Any) -> float:
    import numpy as np

    signal = before.astype(np.float64).reshape(-1)
    noise = after.astype(np.float64).reshape(-1) - signal
    power = float(np.vdot(signal, signal))
    return decibel(float(np.vdot(noise, noise)) / power) if power else math.inf


def stages_text(stages: Stages) -> str:
    """A list of stages in short: `prune (fraction 0.5) · uniform (bits 4)`."""
    parts = []
    for stage in stages:
        name, options = (stage, {}) if isinstance(stage, str) else next(iter(stage.items()))
        text = ", ".join(
            f"{key.replace('_', ' ')} {value}" for key, value in (options or {}).items()
        )
        parts.append(f"{name} ({text})" if text else name)
    return " · ".join(parts)
