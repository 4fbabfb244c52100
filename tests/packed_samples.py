# SPDX-License-Identifier: Apache-2.0
"""Products with packed weights, and what they must come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from runtime.packed import PackedProduct, chunk_inputs, pack_fields

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

    def check(self, x: Array, found: Array) -> None:
        """Raises `AssertionError` where a product is further off than float16 makes it."""
        exact = x.astype(np.float64) @ self.weight.T
        # Sums in float32 of exact products; the result is rounded once.
        bound = np.abs(x.astype(np.float64)) @ np.abs(self.weight.T)
        off = np.abs(found.astype(np.float64) - exact)
        assert (off <= np.abs(exact) * 2.0**-11 + bound * 2.0**-20 + 2.0**-24).all(), off.max()


def make_sample(
    outputs: int, inputs: int, bits: int, kind: str, groups: int = 1, seed: int = 0
) -> PackedSample:
    """A sample of a kind: "uniform", "zeros" or "codebook"."""
    random = np.random.default_rng(seed)
    fields = random.integers(0, 1 << bits, (outputs, inputs)).astype(np.uint8)
    group = inputs if groups == 1 else inputs // groups
    scales = random.uniform(0.01, 0.1, (groups, outputs)).astype(np.float16)
    arrays = {"packed": pack_fields(fields, bits), "scales": scales}
    zero = 1 << (bits - 1)
    if kind == "codebook":
        arrays["codebook"] = np.sort(random.normal(size=1 << bits)).astype(np.float16)
        values = arrays["codebook"].astype(np.float64)[fields]
    elif kind == "zeros":
        arrays["zeros"] = random.integers(0, 1 << bits, scales.shape).astype(np.float16)
        zeros = np.repeat(arrays["zeros"].astype(np.float64), group, 0)[:inputs].T
        values = fields - zeros
    else:
        values = fields.astype(np.float64) - zero
    weight = values * np.repeat(scales.astype(np.float64), group, 0)[:inputs].T
    product = PackedProduct(outputs, inputs, bits, 0 if groups == 1 else group, zero)
    name = f"{kind}{bits}_{outputs}x{inputs}_{groups}"
    return PackedSample(name, product, arrays, weight)


def packed_samples() -> Iterator[PackedSample]:
    """Every width and kind; sizes that fill tiles and chunks and sizes that do not."""
    for bits in (2, 4, 8):
        for kind in ("uniform", "zeros", "codebook"):
            yield make_sample(40, 264, bits, kind)
            yield make_sample(16, 4 * chunk_inputs(bits), bits, kind, groups=2)
        yield make_sample(1, 8, bits, "uniform")
