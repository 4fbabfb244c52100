# SPDX-License-Identifier: Apache-2.0
"""Streams of symbols and damaged blobs for the tests of the small coders."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from runtime.small import SmallCoder

Symbols = npt.NDArray[np.int16]
Words = npt.NDArray[np.uint16]

CODERS: tuple[SmallCoder, ...] = ("adaptive", "huffman", "fixed")
HUFFMAN_SPAN = 4096


def streams() -> Iterator[tuple[str, Symbols, int]]:
    """Name, symbols and row length: sizes × spreads × places, and the corner cases."""
    rng = np.random.default_rng(7)
    for n in (1, 2, 3, 17, 300):
        for spread in (0.0, 0.4, 3.0, 30.0, 700.0, 9000.0):
            for middle in (0, 100, -3000):
                values = np.rint(rng.laplace(middle, spread + 1e-9, n))
                symbols = np.clip(values, -32768, 32767).astype(np.int16)
                yield f"{n} of {spread} at {middle}", symbols, 5
    smooth = np.rint(np.cumsum(rng.normal(0, 1, 900))).astype(np.int16)
    yield "smooth", smooth, 30
    rows = np.rint(rng.normal(0, 1, (40, 25)) * np.exp(rng.normal(0, 1, (1, 25))))
    yield "columns of different spread", rows.astype(np.int16).reshape(-1), 25
    yield "extremes", np.array([-32768, 32767, 0, -32768], np.int16), 0
    yield "long zeros", np.zeros(70000, np.int16), 0
    yield "one above zeros", (np.arange(2000) == 1999).astype(np.int16), 0


def fits(coder: str, symbols: Symbols) -> bool:
    span = int(symbols.max()) - int(symbols.min()) + 1
    return coder != "huffman" or span <= HUFFMAN_SPAN


def with_checksum(words: Words) -> Words:
    """The blob with its length and CRC-32 put right."""
    fixed = words.copy()
    fixed[4], fixed[5] = fixed.size & 0xFFFF, fixed.size >> 16
    crc = zlib.crc32(fixed[4:].astype("<u2").tobytes())
    fixed[2], fixed[3] = crc & 0xFFFF, crc >> 16
    return fixed


def with_word(words: Words, index: int, value: int) -> Words:
    """The blob with one word of its body replaced and the checksum put right."""
    changed = words.copy()
    changed[index] = value
    return with_checksum(changed)


def blob(coder: int, *body: int) -> Words:
    """A blob of these words behind a correct frame."""
    frame = [0x574E, 1 | coder << 8, 0, 0, 0, 0]
    return with_checksum(np.array([*frame, *(word & 0xFFFF for word in body)], np.uint16))
