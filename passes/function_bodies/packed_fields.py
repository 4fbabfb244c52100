# SPDX-License-Identifier: Apache-2.0
"""Parts that the bodies of the small coders share: bit fields, signed words, packed numbers."""

from __future__ import annotations

from collections.abc import Sequence

from passes.function_bodies.body_builder import BodyBuilder

BODY = 6
"""Index of the first word behind the frame of a blob (FORMAT.md 1)."""

POWERS = tuple(2**i for i in range(25))


def split(body: BodyBuilder, value: str, sizes: Sequence[int]) -> list[str]:
    """Split a vector into vectors of these sizes."""
    return body.ops("Split", len(sizes), value, body.ints(*sizes))


def fields(
    body: BodyBuilder, words: str, parts: Sequence[tuple[int, int]], sizes: Sequence[int]
) -> list[str]:
    """Take bit fields out of words.

    Args:
        words: int64, of one element or one per part.
        parts: lowest bit and number of bits of each field.
        sizes: how many fields belong to each result.

    Returns:
        int64 vectors, one per size.
    """
    shifted = body.op("Div", words, body.ints(*(2**low for low, _ in parts)))
    kept = body.op("Mod", shifted, body.ints(*(2**count for _, count in parts)))
    return split(body, kept, sizes)


def signed(body: BodyBuilder, word: str) -> str:
    """A word, int64, read as two's complement."""
    turned = body.op("Add", word, body.ints(32768))
    return body.op("Sub", body.op("Mod", turned, body.ints(65536)), body.ints(32768))


def power(body: BodyBuilder, exponent: str) -> str:
    """2 to the exponent, int64, 0 to 24."""
    return body.op("Gather", body.ints(*POWERS), exponent)


def num_packed_words(body: BodyBuilder, count: str, bits: str) -> str:
    total = body.op("Add", body.op("Mul", count, bits), body.ints(15))
    return body.op("Div", total, body.ints(16))


def unpack(body: BodyBuilder, words: str, start: str, index: str, bits: str) -> str:
    """Packed numbers (FORMAT.md 5).

    Args:
        words: int64, with at least one word more than is packed.
        start: index of the first word, int64 vector of one element.
        index: which numbers, int64 vector.
        bits: bits of each number, int64 vector of one element.

    Returns:
        int64, of the shape of `index`.
    """
    place = body.op("Mul", index, bits)
    at = body.op("Add", body.op("Div", place, body.ints(16)), start)
    low = body.op("Gather", words, at)
    high = body.op("Gather", words, body.op("Add", at, body.ints(1)))
    window = body.op("Add", low, body.op("Mul", high, body.ints(65536)))
    offset = power(body, body.op("Mod", place, body.ints(16)))
    return body.op("Mod", body.op("Div", window, offset), power(body, bits))
