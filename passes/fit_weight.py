# SPDX-License-Identifier: Apache-2.0
"""Fits one array as its settings say."""

from __future__ import annotations

import numpy as np

from passes.schemes import Codebook, FitContext, Lossless, Parameters, Uniform
from passes.settings import WeightSettings
from passes.stages import scheme_of


def fit_weight(
    array: np.ndarray,
    settings: WeightSettings,
    channel_axis: int | None = None,
    remarks: list[str] | None = None,
) -> Parameters | None:
    """Parameters of ``array`` under ``settings``; None for scheme ``keep``.

    Args:
        array: float32, float16, bfloat16, int8 or uint8; integers are always coded losslessly.
        settings: Scheme and resolution.
        channel_axis: The axis of granularity ``row``; the first axis where None.
        remarks: Where schemes write what they have decided.

    Raises:
        SchemeError: the array is empty, holds NaN or infinity (not for ``lossless``) or needs
            symbols of more than 16 bits.
    """
    if settings.scheme == "keep":
        return None
    if settings.stages is not None and array.dtype.kind not in "iu":
        return scheme_of(settings.stages).fit(
            array, FitContext(channel_axis=channel_axis, remarks=remarks)
        )
    if settings.scheme == "lossless" or array.dtype.kind in "iu":
        return Lossless().fit(array)
    if settings.scheme == "codebook":
        return Codebook(entries=settings.entries).fit(array)
    return Uniform(
        bits=settings.bits,
        step=settings.step,
        relative_step=settings.relative_step,
        symmetric=settings.symmetric,
        granularity=settings.granularity,
        axis=0 if channel_axis is None else channel_axis,
        group_size=settings.group_size,
    ).fit(array)
