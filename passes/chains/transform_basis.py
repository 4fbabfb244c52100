# SPDX-License-Identifier: Apache-2.0
"""Bases of inverse transforms, made in the graph out of a few numbers and shared by all weights of
the same size: what ``passes.schemes.transform_kinds`` computes, node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, sqrt

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.schemes.transform_basis import Stage
from passes.schemes.transform_kinds import TRIGONOMETRIC, wavelet_filters, wavelet_levels

_DOUBLE, _INT64 = int(ir.DataType.DOUBLE), int(ir.DataType.INT64)


def basis_of(
    builder: ChainBuilder, kind: str, levels: int | None, stage: Stage, turned: bool
) -> ir.Value:
    """The basis of ``stage``, double [F, F] of integers; transposed where ``turned``."""
    key = ("basis", kind, levels or 0, stage.sizes, turned)
    if turned:
        return builder.shared(
            key,
            lambda: builder.node(
                "Transpose", [basis_of(builder, kind, levels, stage, False)], {"perm": [1, 0]}
            ),
        )
    return builder.shared(key, lambda: _stage_basis(builder, kind, levels, stage))


def _stage_basis(builder: ChainBuilder, kind: str, levels: int | None, stage: Stage) -> ir.Value:
    write = _Writer(builder)
    matrix = _synthesis(builder, kind, stage.sizes[0], levels)
    size = stage.sizes[0]
    for other in stage.sizes[1:]:  # the Kronecker product
        left = write.reshape(matrix, (size, 1, size, 1))
        right = write.reshape(_synthesis(builder, kind, other, levels), (1, other, 1, other))
        size *= other
        matrix = write.reshape(write("Mul", left, right), (size, size))
    return write("Round", write("Mul", matrix, write.double(2.0**stage.shift)))


def _synthesis(builder: ChainBuilder, kind: str, size: int, levels: int | None) -> ir.Value:
    make: Callable[[], ir.Value]
    if kind in TRIGONOMETRIC:
        make = lambda: _trigonometric(_Writer(builder), kind, size)  # noqa: E731
    else:
        make = lambda: _wavelet(_Writer(builder), kind, size, levels or 0)  # noqa: E731
    return builder.shared(("synthesis", kind, levels or 0, size), make)


class _Writer:
    """Nodes by their operator and inputs, with small constants."""

    def __init__(self, builder: ChainBuilder) -> None:
        self.builder = builder

    def __call__(self, op_type: str, *inputs: ir.Value) -> ir.Value:
        return self.builder.node(op_type, inputs)

    def integer(self, value: int) -> ir.Value:
        return self.builder.initializer(np.array(value, np.int64))

    def integers(self, values: Sequence[int]) -> ir.Value:
        return self.builder.initializer(np.array(values, np.int64))

    def double(self, value: float) -> ir.Value:
        return self.builder.initializer(np.array(value, np.float64))

    def cast(self, value: ir.Value, to: int) -> ir.Value:
        return self.builder.node("Cast", [value], {"to": to})

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self("Reshape", value, self.integers(shape))

    def count(self, size: int) -> tuple[ir.Value, ir.Value]:
        """0 … size - 1 as rows [size, 1] and as columns [size]."""
        columns = self("Range", self.integer(0), self.integer(size), self.integer(1))
        return self.reshape(columns, (size, 1)), columns

    def plus(self, value: ir.Value, number: int) -> ir.Value:
        return self("Add", value, self.integer(number)) if number else value

    def times(self, value: ir.Value, number: int) -> ir.Value:
        return self("Mul", value, self.integer(number))


def _trigonometric(write: _Writer, kind: str, size: int) -> ir.Value:
    row, column = write.count(size)
    if kind == "dft":
        half = size // 2
        sine = write.cast(write("Greater", row, write.integer(half)), _INT64)
        frequency = write("Sub", row, write.times(sine, half))
        index = write("Mul", write.times(frequency, 4), column)
        index = write("Add", index, write.plus(write.times(sine, size), size))
        single = write("Mod", write.times(frequency, 2), write.integer(size))
        single = write("Equal", single, write.integer(0))
    else:
        odd = write.plus(write.times(column, 2), 1)
        if kind == "dct":
            index = write.plus(write("Mul", row, odd), size)
            single = write("Equal", row, write.integer(0))
        else:
            index = write("Mul", write.plus(row, 1), odd)
            single = write("Equal", row, write.integer(size - 1))
    index = write("Mod", index, write.integer(4 * size))
    angle = write("Mul", write.cast(index, _DOUBLE), write.double(pi / (2 * size)))
    scale = write("Where", single, write.double(sqrt(1 / size)), write.double(sqrt(2 / size)))
    return write("Mul", write("Sin", angle), scale)


def _wavelet(write: _Writer, kind: str, size: int, levels: int) -> ir.Value:
    matrix: ir.Value | None = None
    for length in reversed(wavelet_levels(kind, size, levels)):
        low, fine = _scale(write, kind, length - length % 2)
        if length % 2:  # the last value goes on to the next scale as it is
            zero = write.double(0.0)
            low, fine = (
                write("Pad", rows, write.integers((0, 0, 0, 1)), zero) for rows in (low, fine)
            )
            one = write.builder.initializer(np.ones((1, 1)))
            last = write("Pad", one, write.integers((0, length - 1, 0, 0)), zero)
            low = write.builder.node("Concat", [low, last], {"axis": 0})
        if matrix is not None:
            low = write("MatMul", matrix, low)
        matrix = write.builder.node("Concat", [low, fine], {"axis": 0})
    return matrix if matrix is not None else write.builder.initializer(np.ones((1, 1)))


def _scale(write: _Writer, kind: str, size: int) -> tuple[ir.Value, ir.Value]:
    """Both halves of one scale's synthesis, double [size / 2, size]: periodised filters, moved on
    by two positions from row to row."""
    filters, first = wavelet_filters(kind)
    taps = filters.shape[1]
    wraps = -(-taps // size)
    row, column = write.count(size // 2)[0], write.count(size)[1]
    place = write.plus(write("Sub", column, write.times(row, 2)), first)
    place = write("Mod", place, write.integer(size))
    halves = []
    for taps_of_half in filters:
        table = write.builder.initializer(taps_of_half)
        if wraps * size > taps:
            ends = write.integers((0, wraps * size - taps))
            table = write("Pad", table, ends, write.double(0.0))
        if wraps > 1:
            folded = write.reshape(table, (wraps, size))
            axis = write.integers((0,))
            table = write.builder.node("ReduceSum", [folded, axis], {"keepdims": 0})
        halves.append(write("Gather", table, place))
    return halves[0], halves[1]
