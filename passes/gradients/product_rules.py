# SPDX-License-Identifier: Apache-2.0
"""What convolutions and matrix products hand back to their inputs."""

from __future__ import annotations

import onnx_ir as ir

from passes.gradients.tape import Given, Rule, Tape
from passes.operator_inputs import integer_attribute


def _matmul(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    first, second = node.inputs
    if first is None or second is None or not all(_has_rank(value) for value in (first, second)):
        return None
    left = tape.op("MatMul", given, _flipped(tape, second))
    right = tape.op("MatMul", _flipped(tape, first), given)
    return [tape.summed_to(left, first), tape.summed_to(right, second)]


def _has_rank(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) >= 2


def _flipped(tape: Tape, value: ir.Value) -> ir.Value:
    rank = len(value.shape or ())
    return tape.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


def _gemm(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    """Of y = alpha a b: alpha y' b' and alpha a' y'."""
    first, second, *bias = node.inputs
    alpha = node.attributes.get("alpha")
    factor = 1.0 if alpha is None else float(alpha.as_float())
    flips = [integer_attribute(node, name, 0) for name in ("transA", "transB")]

    def product(a: ir.Value | None, b: ir.Value | None, flip: int, other: int) -> ir.Value:
        return tape.op("Gemm", a, b, transA=flip, transB=other, alpha=factor)

    left, right = flips
    of_first = product(second, given, right, 1) if left else product(given, second, 0, 1 - right)
    of_second = product(given, first, 1, left) if right else product(first, given, 1 - left, 0)
    return [of_first, of_second, *[None] * len(bias)]


def _convolution(tape: Tape, node: ir.Node, given: ir.Value) -> Given:
    """The transposed convolution without padding, of which the input's own places are taken: what
    lies in the padding goes, and what no window reached is 0. Weights that are computed get
    nothing."""
    x, weight = node.inputs[0], node.inputs[1]
    padding = node.attributes.get("auto_pad")
    if x is None or weight is None or x.shape is None:
        return None
    if padding is not None and padding.as_string() not in ("NOTSET", "VALID"):
        return None
    spatial = len(x.shape) - 2
    names = ("strides", "dilations", "group", "kernel_shape")
    shared = {name: node.attributes[name] for name in names if name in node.attributes}
    full = tape.with_attributes("ConvTranspose", [given, weight], shared)
    pads = node.attributes.get("pads")
    before = [0] * spatial if pads is None else [int(pad) for pad in pads.as_ints()[:spatial]]
    axes = tape.constant([*range(2, spatial + 2)])
    sizes = tape.op("Gather", tape.shape(x), axes)
    starts = tape.constant(before)
    ends = tape.op("Add", starts, sizes)
    lacking = tape.op("Sub", ends, tape.op("Gather", tape.shape(full), axes))
    lacking = tape.op("Max", lacking, tape.constant([0] * spatial))
    nothing = tape.constant([0] * (spatial + 4))
    padded = tape.op("Pad", full, tape.op("Concat", nothing, lacking, axis=0))
    return [tape.op("Slice", padded, starts, ends, axes), *[None] * (len(node.inputs) - 1)]


RULES: dict[str, Rule] = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _convolution}
