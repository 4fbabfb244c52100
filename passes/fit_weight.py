# SPDX-License-Identifier: Apache-2.0
"""Fits arrays as their settings say: one alone, or several that share stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from passes.count_macs import output_positions
from passes.errors import SchemeError
from passes.schemes import (
    FitContext,
    Lossless,
    LowRank,
    Moments,
    Parameters,
    RowUse,
    fit_jointly,
)
from passes.select_weights import Weight
from passes.settings import WeightSettings
from passes.stages import SCHEMES, nested

_UNKNOWN = "ranks by flops: the layer's output positions are not known, counted as 1"


def fit_weight(
    array: np.ndarray,
    settings: WeightSettings,
    channel_axis: int | None = None,
    remarks: list[str] | None = None,
    positions: int | None = None,
    moments: Moments | RowUse | None = None,
    mean_is_free: bool = True,
) -> Parameters | None:
    """Parameters of ``array`` under ``settings``; None for scheme ``keep``.

    Args:
        array: float32, float16, bfloat16, int8 or uint8; integers are always coded losslessly.
        settings: Scheme and resolution.
        channel_axis: The axis of granularity ``row``; the first axis where None.
        remarks: Where schemes write what they have decided.
        positions: Output positions of the layer, for ranks by multiply-accumulates.
        moments: What the weight is multiplied with, for schemes that look at it.
        mean_is_free: Whether a bias takes up the mean error of the layer's outputs.

    Raises:
        SchemeError: the array is empty, holds NaN or infinity (not for ``lossless``) or needs
            symbols of more than 16 bits.
    """
    if settings.scheme == "keep":
        return None
    if array.dtype.kind in "iu":
        return Lossless().fit(array)
    if positions is None and remarks is not None and _counts_flops(settings):
        remarks.append(_UNKNOWN)
    context = FitContext(
        channel_axis=channel_axis,
        remarks=remarks,
        positions=positions,
        moments=moments,
        mean_is_free=mean_is_free,
    )
    return settings.built().fit(array, context)


def fit_group(
    weights: Mapping[str, Weight],
    settings: WeightSettings,
    remarks: Mapping[str, list[str]],
    positions: Mapping[str, int],
) -> dict[str, Parameters]:
    """Parameters of several float weights, by name, that share the stages which ``settings`` names
    as joint; the other arguments as in `fit_weight`, by name. Raises SchemeError likewise."""
    contexts = {
        name: FitContext(
            channel_axis=weight.channel_axis,
            remarks=remarks.get(name),
            positions=positions.get(name),
        )
        for name, weight in weights.items()
    }
    if _counts_flops(settings):
        for name in weights:
            if name not in positions and name in remarks:
                remarks[name].append(_UNKNOWN)
    shared = {SCHEMES[name] for name in settings.joint}
    arrays = {name: weight.array() for name, weight in weights.items()}
    return fit_jointly(settings.built(), shared, arrays, contexts)


def joint_groups(
    plan: Mapping[str, WeightSettings], weights: Mapping[str, Weight]
) -> list[list[str]]:
    """The names that are fitted together: equal settings, of the same rule, with joint stages.

    Weights of integers, and those that hold NaN or infinity, are in no group.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name, settings in plan.items():
        if settings.joint and name in weights and weights[name].role != "integer":
            array = weights[name].array()
            if array.size and np.isfinite(array).all():
                groups.setdefault(settings.group_key, []).append(name)
    return list(groups.values())


def positions_for(model: ir.Model, plan: Collection[WeightSettings]) -> dict[str, int]:
    """Output positions of the weights of ``model``; none where no scheme of ``plan`` asks for
    them."""
    if not any(_counts_flops(settings) for settings in plan):
        return {}
    return output_positions(model)


def _counts_flops(settings: WeightSettings) -> bool:
    return settings.stages is not None and any(
        isinstance(part, LowRank) and part.cost == "flops" and part.positions is None
        for part in nested(settings.built())
    )


def explained(names: Collection[str], error: SchemeError) -> str:
    """What is wrong with a group, in one line."""
    first, *rest = names
    others = f" and {len(rest)} more" if rest else ""
    return f"weights {first}{others}, fitted jointly: {error}"
