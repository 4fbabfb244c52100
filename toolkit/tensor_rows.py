# SPDX-License-Identifier: Apache-2.0
"""Rows of the report, one per weight, from what the passes say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.report import TensorRow

if TYPE_CHECKING:
    from toolkit.pipeline import Finished


def tensor_rows(
    finished: Finished, fitted: Mapping[str, Any], quality: Mapping[str, float]
) -> list[TensorRow]:
    """Rows of the encoded weights, the largest first."""
    rows = []
    for weight in finished.encoded:
        scale = getattr(fitted.get(weight.name), "scale", None)
        rows.append(
            TensorRow(
                weight.name,
                tuple(weight.shape),
                weight.dtype.lower(),
                weight.role,
                weight.scheme,
                weight.coder,
                weight.original_bytes,
                weight.num_bytes,
                weight.num_elements,
                float(scale.reshape(-1)[0]) if scale is not None and scale.size == 1 else None,
                quality.get(weight.name),
            )
        )
    return sorted(rows, key=lambda row: -row.original_bytes)
