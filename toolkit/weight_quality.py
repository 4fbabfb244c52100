# SPDX-License-Identifier: Apache-2.0
"""How near fitted weights are to the original ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.schemes import decode
from toolkit.pipeline import CHUNK

if TYPE_CHECKING:
    from toolkit.pipeline import Source


def weight_quality(source: Source, fitted: dict[str, Any]) -> dict[str, float]:
    """SQNR in dB of every fitted weight itself."""
    quality = {}
    for name, parameters in fitted.items():
        before = source.weights[name].array()
        if before.dtype.kind in "iu" or name in source.odd:
            quality[name] = math.inf
            continue
        signal = noise = 0.0
        after = decode(parameters).reshape(-1)
        flat = before.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK].astype(np.float64)
            error = after[start : start + CHUNK].astype(np.float64) - part
            signal += float(np.vdot(part, part))
            noise += float(np.vdot(error, error))
        quality[name] = 10 * math.log10(signal / noise) if noise and signal else math.inf
    return quality
