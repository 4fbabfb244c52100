# SPDX-License-Identifier: Apache-2.0
"""Which inputs of which operators are weights, and which axis of them is the output channel."""

from __future__ import annotations

import onnx_ir as ir

CONVOLUTIONS = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "DeformConv", "ConvInteger", "QLinearConv"}
)
RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
PASS_THROUGH = frozenset(
    {
        "Identity", "Cast", "CastLike", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
        "QuantizeLinear", "DequantizeLinear",
    }
)  # fmt: skip

# Operator -> inputs that are weights where they are constant. Einsum: all.
_WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "FusedConv": (1,),
    "DeformConv": (1,),
    "ConvInteger": (1,),
    "QLinearConv": (3,),
    "Gemm": (0, 1),
    "FusedGemm": (0, 1),
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (1,),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
    "Gather": (0,),
    "GatherND": (0,),
    "GatherElements": (0,),
    "EmbedLayerNormalization": (2, 3, 4),
    "QEmbedLayerNormalization": (2, 3, 4),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "DynamicQuantizeLSTM": (1, 2),
    "Attention": (1,),
    "QAttention": (1,),
}

# Operator -> inputs that steer it rather than being multiplied with: never quantised.
STEERED: dict[str, tuple[int, ...]] = {
    "Resize": (1, 2),
    "Upsample": (1,),
    "Clip": (1, 2),
    "Pad": (2,),
    "Range": (0, 1, 2),
    "NonMaxSuppression": (3, 4),
    "Pow": (1,),
    "OneHot": (2,),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "ConvInteger": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QAttention": (3, 4, 6, 7),
    "Less": (0, 1),
    "Greater": (0, 1),
    "Equal": (0, 1),
    "LessOrEqual": (0, 1),
    "GreaterOrEqual": (0, 1),
}


def is_weight_input(node: ir.Node, index: int) -> bool:
    """Whether a constant at input ``index`` of ``node`` is a weight."""
    return node.op_type == "Einsum" or index in _WEIGHT_INPUTS.get(node.op_type, ())


def channel_axis_of(node: ir.Node, index: int, rank: int) -> int | None:
    """The axis of output channels of the weight at input ``index`` (rows for Gather); None if
    unknown.

    ``rank`` is the weight's; the answer may be negative.
    """
    kind = node.op_type
    if kind == "ConvTranspose":
        return 1
    if kind in CONVOLUTIONS:
        return 0
    if kind in ("Gemm", "FusedGemm", "QGemm"):
        flipped = integer_attribute(node, "transA" if index == 0 else "transB", 0)
        return int(bool(flipped)) if index == 0 else 1 - int(bool(flipped))
    if kind == "FusedMatMul":
        flipped = integer_attribute(node, "transA" if index == 0 else "transB", 0)
        return -2 if bool(flipped) == (index != 0) else -1
    if kind in (
        "MatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QLinearMatMul",
    ):
        return (-2 if index == 0 else -1) if rank > 1 else None
    if kind in ("Attention", "QAttention"):
        return -1
    if kind == "Gather":
        return integer_attribute(node, "axis", 0)
    if kind in ("GatherND", "EmbedLayerNormalization", "QEmbedLayerNormalization"):
        return 0
    if kind == "DynamicQuantizeLSTM":
        return 2
    return 1 if kind in RECURRENT else None


def integer_attribute(node: ir.Node, name: str, default: int) -> int:
    """The value of an integer attribute of ``node``; ``default`` where it is absent or a
    reference."""
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else attribute.as_int()
