# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md section 4: the canonical Huffman coder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import require
from runtime.oracle.fixed import unpack
from runtime.oracle.frame import HUFFMAN, Words, open_blob

MAX_LENGTH = 12


def code_lengths(packed: Words, alphabet: int, width: int, start: int) -> list[int]:
    """The length of each symbol's code. Raises TK_ERR_TABLE."""
    steps = unpack(packed, alphabet, width) - (2 ** (width - 1) - 1)
    lengths = [int(length) for length in (start + np.cumsum(steps)) % 16]
    if alphabet == 1:
        require(lengths == [0], "TK_ERR_TABLE", f"the only symbol has length {lengths[0]}")
        return lengths
    longest = max(lengths)
    require(longest <= MAX_LENGTH, "TK_ERR_TABLE", f"a code of {longest} bits, at most 12")
    ends = lengths[0] > 0 and lengths[-1] > 0
    require(ends, "TK_ERR_TABLE", "the first or the last symbol has no code")
    filled = sum(2 ** (MAX_LENGTH - length) for length in lengths if length)
    require(filled == 4096, "TK_ERR_TABLE", f"the codes fill {filled} of 4096 slots")
    return lengths


def canonical_codes(lengths: list[int]) -> dict[str, int]:
    """Code, as a string of 0 and 1, to index of the symbol."""
    order = sorted((length, index) for index, length in enumerate(lengths) if length)
    codes, slot = {}, 0
    for length, index in order:
        codes[f"{slot:012b}"[:length]] = index
        slot += 2 ** (MAX_LENGTH - length)
    return codes


def decode_huffman(words: Words) -> npt.NDArray[np.int16]:
    """Decode a Huffman blob, uint16 [w], to its symbols, int16 [n].

    Raises:
        FormatError: the blob breaks a rule of sections 1 and 4.
    """
    cursor = open_blob(words, HUFFMAN)
    head = [cursor.word("header") for _ in range(4)]
    n, width, start = head[0] | (head[1] & 0xFF) << 16, head[1] >> 8 & 15, head[1] >> 12
    first, alphabet = (head[2] ^ 0x8000) - 0x8000, head[3]
    require(n >= 1, "TK_ERR_HEADER", "there are no symbols")
    require(1 <= alphabet <= 4096, "TK_ERR_HEADER", f"{alphabet} symbols, expected 1 to 4096")
    require(2 <= width <= 4, "TK_ERR_HEADER", f"lengths of {width} bits, expected 2 to 4")
    last = first + alphabet - 1
    require(last < 2**15, "TK_ERR_HEADER", f"the last symbol is {last}, above 32767")
    packed = cursor.take((alphabet * width + 15) // 16, "code lengths")
    lengths = code_lengths(packed, alphabet, width, start)
    stream = cursor.words[cursor.at :]
    fewest, most = ((n + 15) // 16, (12 * n + 15) // 16) if alphabet > 1 else (0, 0)
    require(
        fewest <= stream.size <= most,
        "TK_ERR_TRUNCATED",
        f"{n} symbols take {fewest} to {most} words, found {stream.size}",
    )
    if alphabet == 1:
        return np.full(n, first, np.int16)
    codes = canonical_codes(lengths)
    bits = "".join(f"{int(word):016b}" for word in stream)
    symbols = np.empty(n, np.int16)
    at = 0
    for i in range(n):
        length = next(
            (k for k in range(1, MAX_LENGTH + 1) if bits[at : at + k] in codes), MAX_LENGTH + 1
        )
        inside = at + length <= len(bits)
        require(inside, "TK_ERR_STREAM", f"the stream ends within the code of symbol {i}")
        symbols[i] = first + codes[bits[at : at + length]]
        at += length
    require(len(bits) - at < 16, "TK_ERR_STREAM", f"{len(bits) - at} bits are left over")
    return symbols
