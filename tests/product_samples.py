# SPDX-License-Identifier: Apache-2.0
"""Products with compressed weights, with the values they must have, for the ops that do both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import encode_wide
from runtime.packed import pack_fields
from tests.packed_samples import make_sample
from tests.wide_samples import laplace

Array = npt.NDArray[Any]


@dataclasses.dataclass
class ProductSample:
    """An op's node, its inputs by name (None where one is left out), and the output.

    Attributes:
        operator: of the provider that the op runs.
        expected: computed in float32.
    """

    name: str
    op: str
    operator: str
    inputs: dict[str, Array | None]
    attributes: dict[str, Any]
    expected: Array


def product_samples() -> Iterator[ProductSample]:
    """Every op, with scales, zero points and codebooks, in both types, with and without bias."""
    for kind in (np.float32, np.float16):
        for lookup in (False, True):
            for operator in ("MatMul", "LeftMatMul", "Gemm", "Conv"):
                for bias in (False, True)[: 2 if operator in ("Gemm", "Conv") else 1]:
                    yield _sample(operator, lookup, bias, np.dtype(kind))
            yield _packed_sample(lookup, np.dtype(kind))


def _sample(operator: str, lookup: bool, has_bias: bool, kind: np.dtype[Any]) -> ProductSample:
    random = np.random.default_rng(7)
    shapes = {"MatMul": (48, 40), "LeftMatMul": (40, 48), "Gemm": (40, 48), "Conv": (16, 8, 3, 3)}
    shape = shapes[operator]
    coded = (shape[0], int(np.prod(shape[1:-1])), shape[-1])
    symbols = laplace(coded, 4, 3).reshape(shape)
    blob = np.array(encode_wide([laplace((1, 9, 9), 2), symbols.reshape(coded)], steps=96))
    attributes: dict[str, Any] = {"tensor": 1, "shape": list(shape)}
    sizes = {"MatMul": (2, 3, 48), "LeftMatMul": (2, 48, 3), "Gemm": (5, 48), "Conv": (2, 8, 9, 7)}
    x = random.normal(size=sizes[operator]).astype(kind)
    inputs: dict[str, Array | None] = {"x": x, "blob": blob}
    if lookup:
        codebook = (random.normal(size=256) / 8).astype(kind)
        inputs["codebook"] = codebook
        attributes["offset"] = 128
        weight = codebook[symbols.astype(int) + 128].astype(np.float32)
    else:
        scale = random.uniform(0.005, 0.03, shape[0]).astype(kind)
        zero = random.integers(-3, 3, shape[0]).astype(np.int8)
        inputs |= {"scale": scale, "zero_point": zero if has_bias else None}
        attributes["axis"] = 0
        column = (-1, *[1] * (len(shape) - 1))
        centred = symbols.astype(np.int32) - (zero.reshape(column) if has_bias else 0)
        exact = centred.astype(np.float32) * scale.astype(np.float32).reshape(column)
        weight = exact.astype(kind).astype(np.float32)
    bias = random.normal(size=shape[0]).astype(kind) if has_bias else None
    if bias is not None:
        inputs["bias"] = bias
    expected = run_product(operator, x.astype(np.float32), weight, attributes)
    if bias is not None:
        expected += bias.astype(np.float32).reshape((-1, *[1] * (expected.ndim - 2)))
    name = "-".join(
        [operator, "lookup" if lookup else "scales", *["bias"] * has_bias, kind.name]
    ).lower()
    op = f"Decode{operator}{'Lookup' if lookup else ''}"
    return ProductSample(
        name, op, operator.removeprefix("Left"), inputs, attributes, expected.astype(kind)
    )


def _packed_sample(lookup: bool, kind: np.dtype[Any]) -> ProductSample:
    """A convolution with a weight of five bits."""
    random = np.random.default_rng(8)
    shape, bits = (19, 8, 3, 3), 5
    fields = random.integers(0, 1 << bits, (shape[0], 72)).astype(np.uint8)
    x = random.normal(size=(2, 8, 9, 7)).astype(kind)
    scales = (random.uniform(0.5, 1.5, (1, shape[0])) / 100).astype(kind)
    inputs: dict[str, Array | None] = {
        "x": x,
        "packed": pack_fields(fields, bits),
        "scales": scales,
    }
    if lookup:
        inputs["codebook"] = random.normal(size=1 << bits).astype(kind)
        values = inputs["codebook"].astype(np.float32)[fields]
    else:
        inputs["zeros"] = random.integers(9, 20, scales.shape).astype(kind)
        values = fields - inputs["zeros"].astype(np.float32).T
    weight = (values * scales.astype(np.float32).T).astype(kind).reshape(shape)
    bias = inputs["bias"] = random.normal(size=shape[0]).astype(kind)
    attributes: dict[str, Any] = {"shape": list(shape), "bits": bits, "block_size": 72}
    expected = run_product("Conv", x.astype(np.float32), weight.astype(np.float32), attributes)
    expected += bias.astype(np.float32).reshape(-1, 1, 1)
    op = "ConvPackedCodebook" if lookup else "ConvPacked"
    return ProductSample(
        f"{op}-{kind.name}".lower(), op, "Conv", inputs, attributes, expected.astype(kind)
    )


def packed_matmul_sample(rows: int, lookup: bool = False) -> ProductSample:
    """A product of float16 with a packed weight, for many rows by the provider's Gemm."""
    sample = make_sample(37, 72, 3, "codebook" if lookup else "zeros")
    product = sample.product
    x = sample.x_of(rows).reshape(1, rows, product.inputs)
    attributes: dict[str, Any] = {
        "N": product.outputs,
        "K": product.inputs,
        "bits": product.bits,
        "block_size": product.inputs,
    }
    weight = sample.weight.astype(np.float16).astype(np.float32)
    expected = (x.astype(np.float32) @ weight.T).astype(np.float16)
    op = "MatMulPackedCodebook" if lookup else "MatMulPacked"
    return ProductSample(
        f"{op}-{rows}", op, "Gemm", {"x": x, **sample.arrays}, attributes, expected
    )


def run_product(operator: str, x: Array, weight: Array, attributes: dict[str, Any]) -> Array:
    """What the operator makes of float32; its attributes are put to those given."""
    if operator == "MatMul":
        return np.asarray(x @ weight)
    if operator == "LeftMatMul":
        return np.asarray(weight @ x)
    if operator == "Gemm":
        attributes["transB"] = 1
        return np.asarray(x @ weight.T)
    attributes |= {"strides": [2, 1], "pads": [1, 1, 1, 1]}
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2]
    return np.einsum("nchwij,ocij->nohw", windows, weight)
