# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md section 5: the fixed-length coder, and packed numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import require
from runtime.oracle.frame import FIXED, Words, open_blob


def unpack(words: Words, count: int, bits: int) -> npt.NDArray[np.int64]:
    """`count` numbers of `bits` bits each, the first in the lowest bits of the first word."""
    flat = (words[:, None] >> np.arange(16, dtype=np.uint16)) & 1
    picked = flat.reshape(-1)[: count * bits].reshape(count, bits)
    return picked.astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64))


def decode_fixed(words: Words) -> npt.NDArray[np.int16]:
    """Decode a fixed-length blob, uint16 [w], to its symbols, int16 [n].

    Raises:
        FormatError: the blob breaks a rule of sections 1 and 5.
    """
    cursor = open_blob(words, FIXED)
    head = [cursor.word("header") for _ in range(3)]
    n, bits = head[0] | (head[1] & 0xFF) << 16, head[1] >> 8
    first = (head[2] ^ 0x8000) - 0x8000
    require(n >= 1, "TK_ERR_HEADER", "there are no symbols")
    require(bits <= 16, "TK_ERR_HEADER", f"{bits} bits per symbol, at most 16 are allowed")
    packed = cursor.words[cursor.at :]
    wanted = (n * bits + 15) // 16
    require(
        packed.size == wanted,
        "TK_ERR_TRUNCATED",
        f"{n} symbols of {bits} bits need {wanted} words, found {packed.size}",
    )
    symbols = first + unpack(packed, n, bits)
    high = int(symbols.max())
    require(high < 2**15, "TK_ERR_STREAM", f"symbol {high} is above 32767")
    return symbols.astype(np.int16)
