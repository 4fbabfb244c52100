# SPDX-License-Identifier: Apache-2.0
"""The layers that compute with the factors of a weight in place of one that uses the weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx_ir as ir

from passes.operator_inputs import integer_attribute
from passes.schemes import LowRankParameters, Parameters, TuckerParameters

_GEMM_BIAS_OPTIONAL_SINCE = 11

Build = Callable[[Sequence[ir.Value]], list[ir.Node]]


@dataclass(frozen=True)
class FactorLayers:
    """A replacement of one node.

    Attributes:
        before, after: Multiply-accumulates of the node and of its replacement: for one inference
            where the shapes are known, else for one output position (one row of a matrix product).
        build: From the factors' values (in the order of the parameters' children) to the nodes in
            topological order; the last one has the node's output.
    """

    before: float
    after: float
    build: Build


def factor_layers(node: ir.Node, index: int, fitted: Parameters, opset: int) -> FactorLayers | None:
    """The replacement of ``node``, whose input ``index`` is the weight of ``fitted``; None where
    there is none: grouped convolutions, other operators, rank 0, factors that are no layers."""
    if node.domain not in ("", "ai.onnx") or not fitted.children():
        return None
    if isinstance(fitted, LowRankParameters) and len(fitted.shape) == 2:
        if node.op_type == "MatMul":
            return _matmul(node, index, fitted)
        if node.op_type == "Gemm" and index == 1 and opset >= _GEMM_BIAS_OPTIONAL_SINCE:
            return _gemm(node, fitted)
        return None
    if node.op_type != "Conv" or index != 1 or integer_attribute(node, "group", 1) != 1:
        return None
    if isinstance(fitted, TuckerParameters):
        return _tucker(node, fitted) if len(fitted.shape) > 2 else None
    if not isinstance(fitted, LowRankParameters) or not fitted.unfolding.is_layers:
        return None
    return _spatial(node, fitted) if fitted.unfolding.left_is_moved else _out_in(node, fitted)


def _matmul(node: ir.Node, index: int, fitted: LowRankParameters) -> FactorLayers:
    other = node.inputs[1 - index]

    def build(factors: Sequence[ir.Value]) -> list[ir.Node]:
        left, right = factors
        if index == 1:
            first = ir.node("MatMul", [other, left])
            return [first, ir.node("MatMul", [first.outputs[0], right])]
        first = ir.node("MatMul", [right, other])
        return [first, ir.node("MatMul", [left, first.outputs[0]])]

    dims = _dims(other)
    vectors = [] if dims is None else [*dims[:-2], *(dims[-2:-1] if index == 1 else dims[-1:])]
    rows = prod(vectors) if dims is not None and len(dims) > 1 else 1
    return FactorLayers(rows * prod(fitted.shape), rows * fitted.rank * sum(fitted.shape), build)


def _gemm(node: ir.Node, fitted: LowRankParameters) -> FactorLayers:
    flipped = integer_attribute(node, "transB", 0)
    flipped_input = integer_attribute(node, "transA", 0)

    def build(factors: Sequence[ir.Value]) -> list[ir.Node]:
        inner, outer = factors[::-1] if flipped else factors
        transposed = {"transA": flipped_input, "transB": flipped}
        first = ir.node("Gemm", [node.inputs[0], inner], _given(transposed))
        rest = [attribute for name, attribute in node.attributes.items() if name != "transA"]
        inputs = [first.outputs[0], outer, *node.inputs[2:]]
        return [first, ir.Node("", "Gemm", inputs, rest)]

    dims = _dims(node.inputs[0])
    rows = 1 if dims is None else dims[1 if flipped_input else 0]
    return FactorLayers(rows * prod(fitted.shape), rows * fitted.rank * sum(fitted.shape), build)


def _out_in(node: ir.Node, fitted: LowRankParameters) -> FactorLayers:
    grid = _Grid.of(node, fitted.shape)

    def build(factors: Sequence[ir.Value]) -> list[ir.Node]:
        left, right = factors
        first = ir.Node("", "Conv", [node.inputs[0], right], list(node.attributes.values()))
        return [first, ir.node("Conv", [first.outputs[0], left, *node.inputs[2:]])]

    elements = prod(fitted.unfolding.matrix_shape), sum(fitted.unfolding.matrix_shape)
    return FactorLayers(elements[0] * grid.outputs, fitted.rank * elements[1] * grid.outputs, build)


def _spatial(node: ir.Node, fitted: LowRankParameters) -> FactorLayers:
    grid = _Grid.of(node, fitted.shape)
    last = len(fitted.shape) - 3  # of the spatial axes

    def build(factors: Sequence[ir.Value]) -> list[ir.Node]:
        left, right = factors
        before, behind = grid.attributes(range(last)), grid.attributes([last])
        first = ir.node("Conv", [node.inputs[0], right], before)
        return [first, ir.node("Conv", [first.outputs[0], left, *node.inputs[2:]], behind)]

    n, width = fitted.shape[0], fitted.shape[-1]
    columns = fitted.unfolding.matrix_shape[1]
    after = fitted.rank * (columns * grid.between + n * width * grid.outputs)
    return FactorLayers(prod(fitted.shape) * grid.outputs, after, build)


def _tucker(node: ir.Node, fitted: TuckerParameters) -> FactorLayers:
    grid = _Grid.of(node, fitted.shape)

    def build(factors: Sequence[ir.Value]) -> list[ir.Node]:
        last, core, first = factors
        narrow = ir.node("Conv", [node.inputs[0], first])
        attributes = list(node.attributes.values())
        middle = ir.Node("", "Conv", [narrow.outputs[0], core], attributes)
        wide = ir.node("Conv", [middle.outputs[0], last, *node.inputs[2:]])
        return [narrow, middle, wide]

    (n, m, *taps), (r_out, r_in) = fitted.shape, fitted.ranks
    after = r_in * m * grid.inputs + r_out * (r_in * prod(taps) + n) * grid.outputs
    return FactorLayers(prod(fitted.shape) * grid.outputs, after, build)


@dataclass(frozen=True)
class _Grid:
    """Positions and attributes of a convolution.

    Attributes:
        inputs, between, outputs: Positions (times the batch) of its input, of what has been
            convolved along all axes but the last, and of its output; relative to the output where
            the shapes are not known.
    """

    node: ir.Node
    kernel: tuple[int, ...]
    inputs: float
    between: float
    outputs: float

    @classmethod
    def of(cls, node: ir.Node, shape: tuple[int, ...]) -> _Grid:
        kernel = shape[2:]
        source, target = _dims(node.inputs[0]), _dims(node.outputs[0])
        if source is None or target is None:
            strides = _integers(node, "strides", [1] * len(kernel))
            return cls(node, kernel, prod(strides), strides[-1], 1)
        batch, places = target[0], target[2:]
        between = batch * prod(places[:-1]) * source[-1]
        return cls(node, kernel, batch * prod(source[2:]), between, batch * prod(places))

    def attributes(self, axes: Sequence[int]) -> dict[str, Any]:
        """Of a convolution along some of the spatial axes only."""
        count, node = len(self.kernel), self.node
        pads = _integers(node, "pads", [0] * 2 * count)

        def along(values: Sequence[int], default: int) -> list[int]:
            return [value if i % count in axes else default for i, value in enumerate(values)]

        chosen: dict[str, Any] = {
            "kernel_shape": along(self.kernel, 1),
            "strides": along(_integers(node, "strides", [1] * count), 1),
            "dilations": along(_integers(node, "dilations", [1] * count), 1),
        }
        mode = node.attributes.get("auto_pad")
        if mode is not None and mode.as_string() != "NOTSET":
            chosen["auto_pad"] = mode.as_string()
        elif any(pads):
            chosen["pads"] = along(pads, 0)
        return chosen


def _integers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return default if attribute is None else list(attribute.as_ints())


def _given(attributes: dict[str, int]) -> dict[str, int]:
    """Without those that are 0, their default."""
    return {name: value for name, value in attributes.items() if value}


def _dims(value: ir.Value | None) -> list[int] | None:
    """The dimensions where all are known; a first one that is not, the batch, counts as 1."""
    if value is None or value.shape is None or not len(value.shape):
        return None
    first, *rest = value.shape
    if not all(isinstance(size, int) for size in rest):
        return None
    return [first if isinstance(first, int) else 1, *(int(size) for size in rest)]
