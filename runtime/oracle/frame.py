# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md section 1: the frame that every blob has."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import FormatError, require

Words = npt.NDArray[np.uint16]

MAGIC = 0x574E
VERSION = 1
HEADER_WORDS = 6
WIDE, ADAPTIVE, HUFFMAN, FIXED = 1, 2, 3, 4


class WordCursor:
    """Reads words one field after the other.

    Args:
        words: uint16 [n].
    """

    def __init__(self, words: Words) -> None:
        self.words = words
        self.at = 0

    def take(self, count: int, field: str) -> Words:
        """The next `count` words. Raises TK_ERR_TRUNCATED where fewer are left."""
        left = self.words.size - self.at
        require(
            count <= left,
            "TK_ERR_TRUNCATED",
            f"{field} needs {count} words from word {self.at} on, {left} are left",
        )
        part = self.words[self.at : self.at + count]
        self.at += count
        return part

    def word(self, field: str) -> int:
        return int(self.take(1, field)[0])

    def u32(self, field: str) -> int:
        low, high = self.take(2, field)
        return int(low) | int(high) << 16

    def u32_array(self, count: int, field: str) -> npt.NDArray[np.int64]:
        """int64 [count], each 0 ... 2^32 - 1."""
        pairs = self.take(2 * count, field).reshape(count, 2).astype(np.int64)
        return pairs[:, 0] + (pairs[:, 1] << 16)

    def byte_string(self, count: int, field: str) -> npt.NDArray[np.uint8]:
        """uint8 [count], stored in ceil(count / 2) words; an unused last high half must be zero."""
        stored = self.take((count + 1) // 2, field).astype("<u2").view(np.uint8)
        if count % 2:
            require(stored[-1] == 0, "TK_ERR_HEADER", f"{field}: unused last byte is {stored[-1]}")
        return stored[:count]


def checksum(words: Words) -> int:
    """CRC-32 of all bytes of the blob from word 4 to the end."""
    return zlib.crc32(words[4:].astype("<u2").tobytes())


def open_blob(words: Words, coder: int) -> WordCursor:
    """Check the frame of a blob and return a cursor over its body.

    Args:
        words: uint16 [n], the whole blob.
        coder: the coder expected: WIDE, ADAPTIVE, HUFFMAN or FIXED.

    Raises:
        FormatError: in this order TK_ERR_ARGUMENT (not a vector of uint16), TK_ERR_TRUNCATED (fewer
            than 6 words), TK_ERR_MAGIC, TK_ERR_VERSION, TK_ERR_CODER, TK_ERR_TRUNCATED (length),
            TK_ERR_CHECKSUM.
    """
    if words.dtype != np.uint16 or words.ndim != 1:
        found = f"{words.dtype} of rank {words.ndim}"
        raise FormatError("TK_ERR_ARGUMENT", f"expected a vector of uint16, found {found}")
    cursor = WordCursor(words)
    head = cursor.take(HEADER_WORDS, "header")
    require(head[0] == MAGIC, "TK_ERR_MAGIC", f"expected magic {MAGIC:#x}, found {head[0]:#x}")
    version, found_coder = int(head[1]) & 0xFF, int(head[1]) >> 8
    require(version == VERSION, "TK_ERR_VERSION", f"expected version 1, found {version}")
    require(found_coder == coder, "TK_ERR_CODER", f"expected coder {coder}, found {found_coder}")
    stored, length = (int(head[i]) | int(head[i + 1]) << 16 for i in (2, 4))
    require(
        length == words.size,
        "TK_ERR_TRUNCATED",
        f"the header announces {length} words, the blob has {words.size}",
    )
    actual = checksum(words)
    require(
        stored == actual, "TK_ERR_CHECKSUM", f"stored CRC-32 {stored:#010x}, found {actual:#010x}"
    )
    return WordCursor(words[HEADER_WORDS:])
