# SPDX-License-Identifier: Apache-2.0
"""Outputs at padded positions: whatever they are, nobody reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.calibration import Feed

Runs = Sequence[Mapping[str, Any]]


def without_padding(runs: Runs, feeds: Sequence[Feed]) -> list[dict[str, Any]]:
    """The runs with zeros at padding: where an integer or boolean input of rank 2 with "mask" in
    its name is 0, in the outputs that begin with its shape."""
    return [
        {name: _cleared(value, _masks(feed)) for name, value in run.items()}
        for run, feed in zip(runs, feeds, strict=True)
    ]


def _masks(feed: Feed) -> list[Any]:
    return [
        array
        for name, array in feed.items()
        if "mask" in name.lower() and array.ndim == 2 and array.dtype.kind in "iub"
    ]


def _cleared(value: Any, masks: Sequence[Any]) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    for mask in masks:
        if value.ndim >= 2 and value.shape[:2] == mask.shape and mask.any() and not mask.all():
            kept = (mask != 0).reshape(*mask.shape, *[1] * (value.ndim - 2))
            return np.where(kept, value, value.dtype.type(0))
    return value
