# SPDX-License-Identifier: Apache-2.0
"""True sizes: symbols are coded by the packing of ``passes.EncodeWeights`` itself and counted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from passes import EncodeWeights
from passes.chain_builder import ChainBuilder
from passes.schemes import Parameters
from passes.select_weights import Weight, coder_view
from passes.symbol_packing import PackingLimits, SymbolRequest, pack_symbols

_OPSET = 21


def view_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The coder's three dimensions of a weight in torch's layout: matrices as rows, of more than
    two dimensions a convolution."""
    weight = Weight(
        name="w",
        value=ir.Value(name="w"),
        shape=shape,
        dtype=ir.DataType.FLOAT,
        role="weight",
        op_types=(),
        channel_axis=0,
        is_convolution=len(shape) > 2,
    )
    return coder_view(weight)[1]


def symbol_bits(symbols: np.ndarray, view: tuple[int, int, int]) -> float:
    """Bits of int8 or int16 symbols of a tensor alone, by the smallest of the coders."""
    request = SymbolRequest("", symbols, view, symbols.shape, "auto")
    return 8.0 * pack_symbols([request], _builder(), PackingLimits())[0].num_bytes


def smallest_integers(symbols: np.ndarray) -> np.ndarray:
    """Integers as int8 where they fit, else int16."""
    fits = symbols.size == 0 or (symbols.min() >= -128 and symbols.max() <= 127)
    return symbols.astype(np.int8 if fits else np.int16)


def parameters_bits(parameters: Parameters) -> float:
    """Bits of fitted parameters: code and side information as they are stored, without nodes."""
    return 8.0 * stored_bytes({"w": (parameters, "")})


def stored_bytes(tensors: Mapping[str, tuple[Parameters | np.ndarray, str]]) -> int:
    """Bytes of tensors in one file, coded together: all initializers, without nodes.

    Args:
        tensors: By name: fitted parameters, or an array that is stored as it is; and the operator
            that uses it ("" for none that counts).
    """
    values, nodes, plan = [], list[ir.Node](), dict[str, Parameters]()
    for name, (tensor, user) in tensors.items():
        array = tensor if isinstance(tensor, np.ndarray) else tensor.decode()
        value = ir.Value(
            name=name,
            const_value=ir.Tensor(array),
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.Tensor(array).dtype),
        )
        values.append(value)
        nodes.append(_user(value, user or _operator_for(array.shape)))
        if not isinstance(tensor, np.ndarray) and array.size > 1 and array.ndim:
            plan[name] = tensor
    graph = ir.Graph(
        [], [], nodes=nodes, initializers=values, opset_imports={"": _OPSET}, name="sizes"
    )
    EncodeWeights(plan).call(ir.Model(graph, ir_version=10))
    stored = (value.const_value for value in graph.initializers.values())
    return sum(int(tensor.nbytes) for tensor in stored if tensor is not None)


def _operator_for(shape: tuple[int, ...]) -> str:
    return "Conv" if len(shape) > 2 else "Gemm" if len(shape) == 2 else "Add"


def _user(value: ir.Value, op_type: str) -> ir.Node:
    """A node that uses ``value`` as layers of torch do."""
    other = ir.Value(name=f"{value.name}.input")
    inputs = [value, other] if op_type == "Gather" else [other, value]
    attributes = [ir.AttrInt64("transB", 1)] if op_type == "Gemm" else []
    return ir.Node("", op_type, inputs, attributes)


def _builder() -> ChainBuilder:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": _OPSET}, name="sizes")
    return ChainBuilder(ir.Model(graph, ir_version=10))
