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

    def matrix(self) -> Floats:
        """The weight as float64 (features, outputs), zeros between groups."""
        array = self._array().astype(np.float64)
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

    def rows(
        self, given: Array, output: Array, count: int, generator: np.random.Generator
    ) -> tuple[Array, Array, Indices]:
        """``count`` rows drawn without replacement: (rows, features), (rows, outputs), and the
        index of each one's sample on axis 0.

        ``given`` and ``output`` are the layer's input and output of one run; they may come from
        different models.
        """
        if self.use.node.op_type != "Conv":
            places = draw_places(prod(output.shape[:-1]), count, generator)
            features = given.reshape(-1, given.shape[-1])[places]
            return (
                features,
                output.reshape(-1, output.shape[-1])[places],
                places // max(prod(output.shape[1:-1]), 1),
            )
        grid = (output.shape[0], *output.shape[2:])
        places = draw_places(prod(grid), count, generator)
        sample, *spots = (np.asarray(part) for part in np.unravel_index(places, grid))
        kernel = self._array().shape[2:]
        fields = ReceptiveFields(self.use.node, kernel, given.shape[2:], output.shape[2:])
        wanted = np.moveaxis(output, 1, -1)[(sample, *spots)]
        return fields.patches(given, sample, spots), wanted, sample

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
