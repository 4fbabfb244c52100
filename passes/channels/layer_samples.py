# SPDX-License-Identifier: Apache-2.0
"""A layer as a matrix product: rows of its input, its weight as a matrix, rows of its output.

The features of a convolution are its input channels times its taps, in the order of its weight.
Rows are drawn at random from all places of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.channels.labels import Labels
from passes.channels.trace import LayerUse, constant_of, dims_of, integer
from passes.receptive_fields import ReceptiveFields, draw_places

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Block = tuple[slice, slice]
"""Features and outputs of one group of a convolution."""


@dataclass(frozen=True, eq=False)
class MatrixLayer:
    """A Conv, Gemm or MatMul with a constant weight.

    Attributes:
        use: Where it is in the graph, with the labels of its input channels.
        output: The value that it computes, its bias included.
        bias: The node and input that hold its bias, None where it has none.
        taps: Features for each input channel.
        group: Groups of a convolution.
    """

    use: LayerUse
    output: ir.Value
    bias: tuple[ir.Node, int] | None
    taps: int
    group: int

    @property
    def input(self) -> ir.Value:
        """The value that it takes in."""
        value = self.use.node.inputs[0]
        if value is None:
            raise ValueError(f"{self.use.node.op_type} without an input")
        return value

    @property
    def num_features(self) -> int:
        """Columns of a row of its input."""
        return int(self.use.labels.size * self.taps)

    @property
    def feature_labels(self) -> Labels:
        """The label of the channel of each feature, int64 (features,)."""
        return np.repeat(self.use.labels, self.taps)

    def blocks(self) -> list[Block]:
        """Which features each output depends on."""
        outputs = self._array().shape[1 - self.use.axis]
        rows, columns = self.num_features // self.group, outputs // self.group
        return [
            (slice(g * rows, g * rows + rows), slice(g * columns, g * columns + columns))
            for g in range(self.group)
        ]

    def matrix(self, weight: Array | None = None) -> Floats:
        """The weight as float64 (features, outputs), zeros between groups; that of the model where
        ``weight`` is None, else another one of its shape."""
        array = (self._array() if weight is None else weight).astype(np.float64)
        if self.use.axis == 0:
            return array
        rows = array.reshape(array.shape[0], -1).T
        if self.group == 1:
            return rows
        whole = np.zeros((self.num_features, array.shape[0]))
        for features, outputs in self.blocks():
            whole[features, outputs] = rows[:, outputs]
        return whole

    def set_matrix(self, matrix: Floats) -> None:
        """Writes the weight back in its own shape and type."""
        array = self._array()
        if self.use.axis == 0:
            rows = matrix
        else:
            rows = np.concatenate([matrix[f, o] for f, o in self.blocks()], axis=1).T
        set_constant(self.use.weight, rows.reshape(array.shape).astype(array.dtype))

    def state(self) -> tuple[Array, Floats | None]:
        """The weight in its own shape and type, not copied, and the bias, float64 (outputs,)."""
        return self._array(), self.bias_vector()

    def bias_vector(self) -> Floats | None:
        """The bias, float64 (outputs,)."""
        if self.bias is None:
            return None
        node, index = self.bias
        array = constant_of(node.inputs[index])
        return None if array is None else array.astype(np.float64).reshape(-1)

    def set_bias(self, bias: Floats) -> None:
        """Writes the bias back in its own shape and type."""
        node, index = self.bias or (self.use.node, 2)
        value = node.inputs[index]
        array = constant_of(value)
        if value is not None and array is not None:
            set_constant(value, bias.reshape(array.shape).astype(array.dtype))

    def draw(
        self, shape: tuple[int, ...], count: int, generator: np.random.Generator
    ) -> tuple[Indices, ...]:
        """``count`` places of an output of ``shape``, or all where it has fewer, drawn without
        replacement: for each axis but the outputs' own the positions, the sample's first."""
        grid = (shape[0], *shape[2:]) if self.use.node.op_type == "Conv" else shape[:-1]
        total = prod(grid)
        places = draw_places(total, count, generator)
        if not grid:  # a vector times a matrix
            return (places,)
        return tuple(axis.astype(np.int64) for axis in np.unravel_index(places, grid))

    def wanted(self, output: Array, places: tuple[Indices, ...]) -> Array:
        """The outputs at ``places``, (places, outputs)."""
        if self.use.node.op_type == "Conv":
            output = np.moveaxis(output, 1, -1)
        return output[places] if output.ndim > 1 else output[None]

    def features(self, given: Array, shape: tuple[int, ...], places: tuple[Indices, ...]) -> Array:
        """What the layer sees of its input at ``places`` of an output of ``shape``, (places,
        features)."""
        if self.use.node.op_type != "Conv":
            return given[places] if given.ndim > 1 else given[None]
        kernel = self._array().shape[2:]
        sample, *spots = places
        fields = ReceptiveFields(self.use.node, kernel, given.shape[2:], shape[2:])
        return fields.patches(given, sample, spots)

    def _array(self) -> Array:
        array = constant_of(self.use.weight)
        if array is None:
            raise ValueError(f"{self.use.weight.name} is no constant any more")
        return array


def matrix_layer(use: LayerUse) -> MatrixLayer | None:
    """The layer of a consumer, None where it is no plain matrix product."""
    node = use.node
    dims = dims_of(use.weight) or ()
    if node.op_type == "Conv":
        taps = prod(size or 0 for size in dims[2:])
        bias = _own_bias(node)
        return MatrixLayer(use, node.outputs[0], bias, taps, integer(node, "group", 1))
    if node.op_type == "Gemm":
        factors = [node.attributes.get(name) for name in ("alpha", "beta")]
        if any(factor is not None and factor.as_float() != 1.0 for factor in factors):
            return None
        bias = _own_bias(node)
        outputs = dims[1 - use.axis]
        if bias is not None and prod(d or 0 for d in dims_of(_given(*bias)) or ()) != outputs:
            return None
        return MatrixLayer(use, node.outputs[0], bias, 1, 1)
    if node.op_type == "MatMul":
        users = node.outputs[0].uses()
        if len(users) == 1 and users[0].node.op_type == "Add":
            adder, index = users[0].node, 1 - users[0].idx
            if _is_vector(adder.inputs[index], dims[1]):
                return MatrixLayer(use, adder.outputs[0], (adder, index), 1, 1)
        return MatrixLayer(use, node.outputs[0], None, 1, 1)
    return None


def set_constant(value: ir.Value, array: Array) -> None:
    """Gives an initializer other data of the same type."""
    old = value.const_value
    dtype = old.dtype if old is not None else None
    value.const_value = ir.Tensor(np.ascontiguousarray(array), dtype=dtype, name=value.name)


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.op_type} lacks input {index}")
    return value


def _own_bias(node: ir.Node) -> tuple[ir.Node, int] | None:
    present = len(node.inputs) > 2 and constant_of(node.inputs[2]) is not None
    return (node, 2) if present and len(_given(node, 2).uses()) == 1 else None


def _is_vector(value: ir.Value | None, size: int | None) -> bool:
    array = constant_of(value)
    if value is None or array is None or len(value.uses()) > 1:
        return False
    return array.size == size and array.shape[-1:] == (size,)
