# SPDX-License-Identifier: Apache-2.0
"""Packed mode: products with compressed weights become products with packed weights.

Rewritten are, in a model that `graph_fuse` has fused, with a weight w that nothing else reads,
`DecodeDequantize(blob, scale[, zero_point])` or `DecodeLookup(blob, codebook)`,

    MatMul(x, w)                                -> MatMulPacked, MatMulPackedCodebook
    Gemm(x, w[, bias]){transA=0, alpha=beta=1}  -> the same [and Add]
    Conv(x, w[, bias])                          -> ConvPacked, ConvPackedCodebook

of float16 and with two dimensions for MatMul and Gemm, which multiply straight from the packed
weight; for Conv of a type that the provider convolves, for whose operator the weight is unpacked.
Rewritten are those where the symbols span at most 256 numbers, which are then stored in as few bits
as they need, and the scale is one, one for each output, or for MatMul and Gemm one for blocks of
inputs that are multiples of 32. All other weights stay as they are and are decoded at every run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from runtime.element_types import array_of_tensor
from runtime.graph_fuse import replace_node
from runtime.graph_products import has_known_pads
from runtime.graph_values import DOMAIN, Node, Scope, count_uses, drop_unused, scan
from runtime.packed import BITS, SPAN, pack_fields
from runtime.wide import WideReader

_DECODERS = {"DecodeDequantize": "Packed", "DecodeLookup": "PackedCodebook"}
_PRODUCTS = ("MatMul", "Gemm", "Conv")
_MOST_ZERO = 1023  # 1024 plus or minus a zero point is a float16 integer


@dataclasses.dataclass
class _Weight:
    """A weight ready to be packed.

    Attributes:
        fields: uint8 [outputs, inputs].
        bits: of a field.
        scales: float16 or float32 [groups, outputs].
        more: of the scales' type, zeros of their shape or the codebook.
        group: inputs that share a scale.
    """

    fields: npt.NDArray[np.uint8]
    bits: int
    scales: npt.NDArray[np.floating]
    more: npt.NDArray[np.floating]
    group: int


def pack(model: onnx.ModelProto, folder: str = "", types: Collection[int] = ()) -> int:
    """Pack the weights of products in the whole model.

    Args:
        model: a fused model, which is changed.
        folder: where its external data lies.
        types: element types that the provider convolves.

    Returns:
        How many weights were packed.
    """
    root = scan(model.graph, overridable=model.ir_version >= 4)
    packer = _Packer(root, folder, types)
    packed = sum(packer.pack_products(scope) for scope in root.walk())
    drop_unused(root)
    return packed


class _Packer:
    def __init__(self, root: Scope, folder: str, types: Collection[int]) -> None:
        self._uses = count_uses(root)
        self._folder = folder
        self._convolved = [helper.tensor_dtype_to_np_dtype(kind) for kind in types]
        self._readers: dict[str, WideReader] = {}

    def pack_products(self, scope: Scope) -> int:
        """Pack the products of one graph; return their number."""
        packed = 0
        for node in list(scope.nodes):
            if node.domain not in ("", "ai.onnx") or node.op_type not in _PRODUCTS:
                continue
            turned = self._is_turned(node)
            decode = scope.producer(node.inputs[1])
            if turned is None or decode is None or self._uses[node.inputs[1]] != 1:
                continue
            if decode.domain != DOMAIN or decode.op_type not in _DECODERS:
                continue
            weight = self._weight(scope, decode, turned, node.op_type == "Conv")
            if weight is not None:
                self._replace(scope, node, decode, weight)
                packed += 1
        return packed

    def _is_turned(self, node: Node) -> bool | None:
        """Whether the weight is [outputs, inputs]; None for a product that cannot be packed."""
        if node.op_type == "MatMul":
            return False
        if node.op_type == "Conv":
            return True if has_known_pads(node) else None
        attributes = node.attributes()
        if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0:
            return None
        if len(node.inputs) > 2 and node.inputs[2] and attributes.get("beta", 1.0) != 1.0:
            return None
        return bool(attributes.get("transB", 0))

    def _weight(self, scope: Scope, decode: Node, turned: bool, conv: bool) -> _Weight | None:
        attributes = decode.attributes()
        shape = list(attributes["shape"])
        table = self._constant(scope, decode.inputs[1])
        if table is None or table.dtype not in (self._convolved if conv else [np.float16]):
            return None
        if len(shape) < 3 if conv else len(shape) != 2:
            return None
        symbols = self._symbols(scope, decode.inputs[0], attributes["tensor"], shape)
        if symbols is None:
            return None
        symbols = symbols.reshape(shape[0], -1) if conv else symbols
        if not turned:
            symbols = symbols.T
        if decode.op_type == "DecodeLookup":
            return _with_codebook(symbols, table, int(attributes.get("offset", 0)))
        zero = None
        if len(decode.inputs) > 2 and decode.inputs[2]:
            zero = self._constant(scope, decode.inputs[2])
            if zero is None:
                return None
        axis, block = attributes.get("axis", 1) % len(shape), attributes.get("block_size", 0)
        if conv and block:  # of channels, which lie apart where filters are larger than 1
            return None
        along_inputs = axis != 0 if turned else axis == 0
        return _with_scales(symbols, table, zero, along_inputs, block, turned)

    def _symbols(
        self, scope: Scope, blob: str, tensor: int, shape: list[int]
    ) -> npt.NDArray[np.int16] | None:
        if blob not in self._readers:
            words = self._constant(scope, blob)
            if words is None:
                return None
            self._readers[blob] = WideReader(words.astype(np.uint16, copy=False))
        symbols = self._readers[blob].decode_tensor(tensor).reshape(-1)[: math.prod(shape)]
        return symbols.reshape(shape).astype(np.int16)

    def _constant(self, scope: Scope, name: str) -> npt.NDArray[np.generic] | None:
        tensor = scope.initializer(name)
        return None if tensor is None else array_of_tensor(tensor, self._folder)

    def _replace(self, scope: Scope, node: Node, decode: Node, weight: _Weight) -> None:
        name = decode.outputs[0]
        arrays = {
            f"{name}_packed": pack_fields(weight.fields, weight.bits),
            f"{name}_scales": weight.scales,
            f"{name}_{'codebook' if decode.op_type == 'DecodeLookup' else 'zeros'}": weight.more,
        }
        for key, array in arrays.items():
            scope.graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(array), key)
            )
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        suffix = _DECODERS[decode.op_type]
        if node.op_type == "Conv":
            made = helper.make_node(
                f"Conv{suffix}",
                [node.inputs[0], *arrays, *([bias] if bias else [])],
                node.outputs,
                name=node.label,
                domain=DOMAIN,
                shape=decode.attributes()["shape"],
                bits=weight.bits,
                block_size=weight.group,
            )
            made.attribute.extend(node.proto.attribute)
            replace_node(node, made)
            return
        output = node.outputs[0]
        product = f"{output}_product" if bias else output
        outputs, inputs = weight.fields.shape
        made = helper.make_node(
            f"MatMul{suffix}",
            [node.inputs[0], *arrays],
            [product],
            name=node.label,
            domain=DOMAIN,
            N=outputs,
            K=inputs,
            bits=weight.bits,
            block_size=weight.group,
        )
        last = made
        if bias:
            last = helper.make_node("Add", [product, bias], [output])
            scope.graph.node.insert(list(scope.graph.node).index(node.proto), made)
            scope.nodes.append(Node.of(made))
        replace_node(node, last)


def _width(span: int) -> int | None:
    """Bits of a field that holds the numbers from 0 to `span`."""
    bits = max(1, span.bit_length())
    return bits if bits in BITS else None


def _with_codebook(
    symbols: npt.NDArray[np.int16], codebook: npt.NDArray[np.generic], offset: int
) -> _Weight | None:
    places = symbols.astype(np.int32) + offset
    if codebook.ndim != 1 or places.min() < 0 or places.max() >= codebook.size:
        return None
    first = int(places.min())
    bits = _width(int(places.max()) - first)
    if bits is None:
        return None
    entries = np.zeros(1 << bits, codebook.dtype)
    kept = codebook[first : first + (1 << bits)]
    entries[: kept.size] = kept
    outputs, inputs = symbols.shape
    fields = (places - first).astype(np.uint8)
    return _Weight(fields, bits, np.ones((1, outputs), codebook.dtype), entries, inputs)


def _with_scales(
    symbols: npt.NDArray[np.int16],
    scales: npt.NDArray[np.generic],
    zero: npt.NDArray[np.generic] | None,
    along_inputs: bool,
    block: int,
    turned: bool,
) -> _Weight | None:
    outputs, inputs = symbols.shape
    lowest = int(symbols.min())
    bits = _width(int(symbols.max()) - lowest)
    if bits is None:
        return None
    group = inputs

    def spread(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic] | None:
        """As [groups, outputs]; None where scales lie otherwise."""
        if values.size == 1 and not block:
            return np.broadcast_to(values.reshape(1, 1), (1, outputs))
        if block:
            return (values.T if turned else values) if along_inputs else None
        return None if along_inputs else values.reshape(1, outputs)

    if block:
        group = min(block, inputs)
        if group < inputs and group % SPAN:
            return None
    wide = spread(scales)
    if wide is None:
        return None
    zeros = np.zeros(wide.shape, np.int32)
    if zero is not None:
        given = spread(zero)
        if given is None:
            return None
        zeros = zeros + given.astype(np.int32)
    zeros -= lowest
    if abs(zeros).max() > _MOST_ZERO:
        return None
    fields = (symbols - lowest).astype(np.uint8)
    return _Weight(fields, bits, wide.astype(scales.dtype), zeros.astype(scales.dtype), group)
