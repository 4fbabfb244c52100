# SPDX-License-Identifier: Apache-2.0
"""Products with packed weights, and what they must come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from runtime.packed import BITS, SPAN, PackedProduct, chunk_inputs, pack_fields

Array = np.ndarray[Any, Any]


@dataclasses.dataclass
class PackedSample:
    """A product: its name, sizes, arrays by name, and the weight [outputs, inputs] in float64."""

    name: str
    product: PackedProduct
    arrays: dict[str, Array]
    weight: Array

    def x_of(self, batch: int) -> Array:
        random = np.random.default_rng(batch)
        return random.normal(size=(batch, self.product.inputs)).astype(np.float16)

    def arrays_to_unpack(self, kind: Any) -> dict[str, Array]:
        """What its weight is unpacked from in the type `kind`, zero points among it."""
        arrays = {k: a if k == "packed" else a.astype(kind) for k, a in self.arrays.items()}
        if "codebook" not in arrays and "zeros" not in arrays:
            arrays["zeros"] = np.full_like(arrays["scales"], self.product.zero)
        return arrays

    def check(self, x: Array, found: Array) -> None:
        """Raises `AssertionError` where a product is further off than float16 makes it."""
        exact = x.astype(np.float64) @ self.weight.T
        # Sums in float32 of exact products; the result is rounded once.
        bound = np.abs(x.astype(np.float64)) @ np.abs(self.weight.T)
        off = np.abs(found.astype(np.float64) - exact)
        assert (off <= np.abs(exact) * 2.0**-11 + bound * 2.0**-20 + 2.0**-24).all(), off.max()


def expected_words(fields: Array, bits: int) -> Array:
    """The packed form of fields [outputs, inputs], bit by bit as packed_layout.h says it."""
    outputs, inputs = fields.shape
    widest = max(p for p in (1, 2, 4, 8) if bits & p)
    chunk = 256 // widest
    tiles, chunks = -(-outputs // 16), -(-inputs // chunk)
    words = np.zeros((tiles, chunks, 128 * bits // widest), np.uint32)
    for output, row in enumerate(fields):
        for place, field in enumerate(row):
            tile, m = divmod(output, 16)
            number, inside = divmod(place, chunk)
            # The lane of a warp, and which of its fields of the chunk this is: those of an input
            # and the next are a pair, and pairs of the outputs m and m + 8 take turns.
            lane = m % 8 * 4 + inside % 32 // 8
            pair = (inside // 32 * 4 + inside % 8 // 2) * 2 + m // 8
            bit = first = 0
            for part in (8, 4, 2, 1):
                if not bits & part:
                    continue
                word, at = divmod(pair, 16 // part)
                value = int(field) >> bit & ((1 << part) - 1)
                index = first + lane * (4 * part // widest) + word
                words[tile, number, index] |= np.uint32(value << (at * part + 16 * (inside % 2)))
                bit += part
                first += 128 * part // widest
    return words.reshape(-1)


def make_sample(
    outputs: int, inputs: int, bits: int, kind: str, group: int = 0, seed: int = 0
) -> PackedSample:
    """A sample of a kind: "uniform", "zeros" or "codebook"; group 0 is one of all inputs."""
    random = np.random.default_rng(seed)
    fields = random.integers(0, 1 << bits, (outputs, inputs)).astype(np.uint8)
    groups = -(-inputs // group) if group else 1
    scales = random.uniform(0.01, 0.1, (groups, outputs)).astype(np.float16)
    arrays = {"packed": pack_fields(fields, bits), "scales": scales}
    zero = 1 << (bits - 1)
    if kind == "codebook":
        arrays["codebook"] = np.sort(random.normal(size=1 << bits)).astype(np.float16)
        values = arrays["codebook"].astype(np.float64)[fields]
    elif kind == "zeros":
        arrays["zeros"] = random.integers(-1 << bits, 1 << bits, scales.shape).astype(np.float16)
        zeros = np.repeat(arrays["zeros"].astype(np.float64), group or inputs, 0)[:inputs].T
        values = fields - zeros
    else:
        values = fields.astype(np.float64) - zero
    weight = values * np.repeat(scales.astype(np.float64), group or inputs, 0)[:inputs].T
    product = PackedProduct(outputs, inputs, bits, group, zero)
    name = f"{kind}{bits}_{outputs}x{inputs}_{group}"
    return PackedSample(name, product, arrays, weight)


def packed_samples() -> Iterator[PackedSample]:
    """Every width and kind; sizes that fill tiles and chunks and sizes that do not."""
    for bits in BITS:
        for kind in ("uniform", "zeros", "codebook"):
            yield make_sample(40, 264, bits, kind)
            yield make_sample(16, 4 * chunk_inputs(bits), bits, kind, 2 * chunk_inputs(bits))
            yield make_sample(21, 300, bits, kind, SPAN)
        yield make_sample(1, 8, bits, "uniform")
        yield make_sample(17, 33, bits, "zeros", SPAN)
