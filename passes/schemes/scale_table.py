# SPDX-License-Identifier: Apache-2.0
"""Scales that take few values, as a table and what each index takes of it."""

from __future__ import annotations

import numpy as np

from passes.schemes.codebook_parameters import CodebookParameters, assigned

_MOST = 256
_NODE_BITS = 8 * 160
"""Of the nodes that look a scale up."""


def scale_table(scale: np.ndarray) -> CodebookParameters | None:
    """The table of scales, float32 or float16 of any shape; None where they themselves take no
    more."""
    if scale.size * 8 * scale.itemsize <= _NODE_BITS:
        return None
    values = np.unique(scale)
    if values.size > _MOST:
        return None
    table = assigned(CodebookParameters, scale, values, None)
    return table if table.bits() + _NODE_BITS < 8 * scale.nbytes else None


def scale_bits(scale: np.ndarray) -> float:
    """Bits that scales take in a file."""
    table = scale_table(scale)
    return 8.0 * scale.nbytes if table is None else table.bits() + _NODE_BITS
