# SPDX-License-Identifier: Apache-2.0
"""Function bodies of the toolkit's operators, in standard ONNX operators only.

A model that carries them runs on stock ONNX Runtime. They use operators and types that mean the
same from opset 13 on; ONNX Runtime inlines them under the model's opset, which they therefore
declare.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import onnx

from passes.function_bodies.decode_adaptive import decode_adaptive
from passes.function_bodies.decode_dequantize import decode_dequantize
from passes.function_bodies.decode_fixed import decode_fixed
from passes.function_bodies.decode_huffman import decode_huffman
from passes.function_bodies.decode_lookup import decode_lookup
from passes.function_bodies.decode_product import decode_product
from passes.function_bodies.decode_tensor import decode_tensor
from passes.function_bodies.decode_wide import decode_wide
from passes.function_bodies.join_float import join_float, join_half
from passes.function_bodies.packed_products import conv_packed, matmul_packed
from passes.function_bodies.take_range import take_range
from passes.function_bodies.take_tensor import take_tensor
from passes.function_bodies.wide_head import wide_head
from passes.function_bodies.wide_tensor import wide_tensor

OLDEST_OPSET = 13

_BODIES: dict[str, Callable[[int], onnx.FunctionProto]] = {
    "ConvPacked": conv_packed,
    "ConvPackedCodebook": partial(conv_packed, codebook=True),
    "DecodeAdaptive": decode_adaptive,
    "DecodeDequantize": decode_dequantize,
    "DecodeFixed": decode_fixed,
    "DecodeHuffman": decode_huffman,
    "DecodeLookup": decode_lookup,
    "DecodeTensor": decode_tensor,
    "DecodeTensor16": partial(decode_tensor, wide=True),
    "DecodeWide": decode_wide,
    "DecodeWide16": partial(decode_wide, wide=True),
    "JoinFloat": join_float,
    "JoinHalf": join_half,
    "MatMulPacked": matmul_packed,
    "MatMulPackedCodebook": partial(matmul_packed, codebook=True),
    "TakeRange": take_range,
    "TakeTensor": take_tensor,
    "WideHead": wide_head,
    "WideTensor": wide_tensor,
}
_PRODUCTS = ("Conv", "Gemm", "LeftMatMul", "MatMul")
for _name in _PRODUCTS:
    _BODIES[f"Decode{_name}"] = partial(decode_product, operator=_name)
    _BODIES[f"Decode{_name}Lookup"] = partial(decode_product, operator=_name, lookup=True)
_CALLS: dict[str, tuple[str, ...]] = {
    **{f"Decode{name}": ("DecodeDequantize",) for name in _PRODUCTS},
    **{f"Decode{name}Lookup": ("DecodeLookup",) for name in _PRODUCTS},
    "DecodeDequantize": ("WideTensor",),
    "DecodeLookup": ("WideTensor",),
    "DecodeTensor": ("WideTensor",),
    "DecodeTensor16": ("WideTensor",),
    "DecodeWide": ("WideHead",),
    "DecodeWide16": ("WideHead",),
    "WideTensor": ("DecodeWide16", "WideHead"),
}


def function_bodies(
    names: set[str], opset: int, *, zero_points: bool = False, trellis: bool = False
) -> list[onnx.FunctionProto]:
    """The functions of these names and those that they call, in order of name.

    Args:
        names: operators of the toolkit's domain.
        opset: the model's opset of the standard domain, 13 or more.
        zero_points: nodes of DecodeDequantize, and of the products with such weights, have a zero
            point.
        trellis: there are blobs with trellis sets (FORMAT.md 2.9).

    Raises:
        ValueError: an unknown name, or an opset below 13.
    """
    if opset < OLDEST_OPSET:
        raise ValueError(f"function bodies need opset {OLDEST_OPSET} or more, found {opset}")
    unknown = sorted(names - _BODIES.keys())
    if unknown:
        raise ValueError(f"no function body for {', '.join(unknown)}")
    wanted: set[str] = set()
    open_names = sorted(names)
    while open_names:
        name = open_names.pop()
        if name not in wanted:
            wanted.add(name)
            open_names += _CALLS.get(name, ())
    bodies: dict[str, Callable[[int], onnx.FunctionProto]] = _BODIES | {
        "DecodeDequantize": partial(decode_dequantize, zero_point=zero_points),
        **{
            f"Decode{name}": partial(decode_product, operator=name, zero_point=zero_points)
            for name in _PRODUCTS
        },
        "DecodeWide": partial(decode_wide, trellis=trellis),
        "DecodeWide16": partial(decode_wide, wide=True, trellis=trellis),
    }
    return [bodies[name](opset) for name in sorted(wanted)]
