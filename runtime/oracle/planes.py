# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md section 6: joining the byte planes of floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import require


def join_float_bits(planes: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """The bits of the floats that the planes hold.

    Args:
        planes: 2 or 4 arrays of one shape: the first int8, byte minus 128; the others uint8, or
            int8 where they were coded, the byte read as two's complement.

    Returns:
        uint16 or uint32 of that shape.

    Raises:
        FormatError: TK_ERR_ARGUMENT, another number, type or shape.
    """
    known = len(planes) in (2, 4) and all(p.dtype in (np.int8, np.uint8) for p in planes)
    require(known, "TK_ERR_ARGUMENT", "expected 2 or 4 planes of int8 or uint8")
    require(planes[0].dtype == np.int8, "TK_ERR_ARGUMENT", "plane 0 is not int8")
    shapes = {plane.shape for plane in planes}
    require(len(shapes) == 1, "TK_ERR_ARGUMENT", f"planes of different shapes: {sorted(shapes)}")
    u = np.zeros(planes[0].shape, np.uint64)
    for number, plane in enumerate(planes):
        byte = (plane.astype(np.int64) + (0 if number else 128)) % 256
        u = u * np.uint64(256) + byte.astype(np.uint64)
    sign_place = np.uint64(8 * len(planes) - 1)
    bits = (u >> np.uint64(1)) | ((u & np.uint64(1)) << sign_place)
    return bits.astype(np.uint16 if len(planes) == 2 else np.uint32)
