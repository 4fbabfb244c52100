# SPDX-License-Identifier: Apache-2.0
"""Stream mode: fuse the decoding of each weight into one node that decodes only that weight.

Rewritten are, with `symbols = DecodeWide(blob)` or `DecodeWide16(blob)` and a constant blob,

    DequantizeLinear(TakeTensor(symbols), scale[, zero_point])   -> DecodeDequantize
    Gather(codebook, Cast(TakeTensor(symbols)) [+ offset])       -> DecodeLookup

    TakeTensor(symbols), whatever reads it                       -> DecodeTensor, DecodeTensor16

where nothing else reads the values in between. All other nodes stay.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper, numpy_helper

from runtime.errors import CodecError, ModelError
from runtime.graph_values import DOMAIN, Scope, count_uses, drop_unused, scan
from runtime.wide import WideReader

_DECODERS = frozenset({"DecodeWide", "DecodeWide16"})
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})


_Place = tuple[int, int, int]
"""Where a tensor lies in its blob: first lane, number of lanes, steps of a full lane."""


def fuse(model: onnx.ModelProto, folder: str = "") -> int:
    """Fuse decoding and dequantisation or lookup in the whole model.

    Args:
        model: the model to change.
        folder: where its external data lies.

    Returns:
        How many weights were fused.

    Raises:
        ModelError: a blob is refused; the message names it.
    """
    fuser = _Fuser(count_uses(model.graph), folder)
    root = scan(model.graph, overridable=model.ir_version >= 4)
    fused = sum(fuser.fuse_scope(scope) for scope in root.walk())
    drop_unused(model.graph)
    return fused


@dataclasses.dataclass
class _Taken:
    """A TakeTensor node whose tensor of its blob is known; `op_type` decodes just that tensor."""

    blob: str
    tensor: int
    shape: list[int]
    op_type: str


class _Fuser:
    """Finds chains of nodes and replaces the last node of each."""

    def __init__(self, uses: Counter[str], folder: str) -> None:
        self._uses = uses
        self._folder = folder
        self._directories: dict[str, dict[_Place, int]] = {}

    def fuse_scope(self, scope: Scope) -> int:
        """Fuse the chains that end in the scope; return their number."""
        fused = 0
        for node in scope.graph.node:
            new = None
            if node.domain in ("", "ai.onnx"):
                if node.op_type == "DequantizeLinear":
                    new = self._dequantize(scope, node)
                elif node.op_type == "Gather":
                    new = self._lookup(scope, node)
            if new is not None:
                node.CopyFrom(new)
                fused += 1
        for node in scope.graph.node:
            if is_take(node) and self._is_read(scope, node):
                taken = self._place(scope, node)
                if taken is not None:
                    node.CopyFrom(_fused(taken.op_type, node, taken, (), {}))
        return fused

    def _is_read(self, scope: Scope, node: onnx.NodeProto) -> bool:
        """Whether the symbols are still read after the fusing of what reads them."""
        return any(node.output[0] in other.input for other in scope.graph.node) or bool(scope.inner)

    def _dequantize(self, scope: Scope, node: onnx.NodeProto) -> onnx.NodeProto | None:
        attributes = _attributes(node)
        scale = scope.initializer(node.input[1])
        if attributes.get("output_dtype") or scale is None or scale.data_type not in _FLOATS:
            return None
        taken = self._taken(scope, node.input[0])
        if taken is None:
            return None
        settings = {"axis": attributes.get("axis", 1)}
        if attributes.get("block_size"):
            settings["block_size"] = attributes["block_size"]
        return _fused("DecodeDequantize", node, taken, node.input[1:], settings)

    def _lookup(self, scope: Scope, node: onnx.NodeProto) -> onnx.NodeProto | None:
        tensor = scope.initializer(node.input[0])
        if tensor is None or len(tensor.dims) != 1 or tensor.data_type not in _FLOATS:
            return None
        offset = 0
        step = self._sole_producer(scope, node.input[1])
        if step is not None and step.op_type == "Add":
            terms = {name: self._scalar(scope, name) for name in step.input}
            sources = [name for name, term in terms.items() if term is None]
            if len(sources) != 1 or len(terms) != 2:
                return None
            offset = sum(term for term in terms.values() if term is not None)
            step = self._sole_producer(scope, sources[0])
        if step is None or step.op_type != "Cast":
            return None
        taken = self._taken(scope, step.input[0])
        if taken is None:
            return None
        return _fused("DecodeLookup", node, taken, node.input[:1], {"offset": offset})

    def _taken(self, scope: Scope, name: str) -> _Taken | None:
        """Return which tensor of which blob a value is, where it is one and read only once."""
        take = self._sole_producer(scope, name)
        if take is None or not is_take(take):
            return None
        return self._place(scope, take)

    def _place(self, scope: Scope, take: onnx.NodeProto) -> _Taken | None:
        """Return which tensor of which constant blob a TakeTensor node takes."""
        decode = scope.producer(take.input[0])
        if decode is None or decode.domain != DOMAIN or decode.op_type not in _DECODERS:
            return None
        blob = decode.input[0]
        if blob not in self._directories:
            tensor = scope.initializer(blob)
            if tensor is None:
                return None
            self._directories[blob] = self._directory(tensor)
        attributes = _attributes(take)
        place = (attributes["lane"], attributes["lanes"], attributes["steps"])
        index = self._directories[blob].get(place)
        if index is None:
            return None
        op_type = "DecodeTensor16" if decode.op_type == "DecodeWide16" else "DecodeTensor"
        return _Taken(blob, index, list(attributes["shape"]), op_type)

    def _directory(self, blob: onnx.TensorProto) -> dict[_Place, int]:
        """Return the index of each tensor of a blob by its place."""
        try:
            reader = WideReader(numpy_helper.to_array(blob, self._folder))
        except CodecError as error:
            raise ModelError(f"initializer '{blob.name}': {error}") from error
        places = {}
        for index, tensor in enumerate(reader.tensors):
            steps = min(tensor.rows_per_lane, tensor.shape[0] * tensor.shape[1]) * tensor.shape[2]
            places[tensor.first_lane, tensor.num_lanes, steps] = index
        return places

    def _sole_producer(self, scope: Scope, name: str) -> onnx.NodeProto | None:
        return scope.producer(name) if self._uses[name] == 1 else None

    def _scalar(self, scope: Scope, name: str) -> int | None:
        tensor = scope.initializer(name)
        if tensor is None or math.prod(tensor.dims) != 1:
            return None
        return int(numpy_helper.to_array(tensor, self._folder).reshape(-1)[0])


def _fused(
    op_type: str,
    node: onnx.NodeProto,
    taken: _Taken,
    inputs: Sequence[str],
    settings: Mapping[str, int],
) -> onnx.NodeProto:
    """Make the node that takes the place of the last one of a chain."""
    made = onnx.NodeProto(
        op_type=op_type,
        domain=DOMAIN,
        name=node.name or node.output[0],
        input=[taken.blob, *inputs],
        output=node.output,
    )
    for name, value in {"tensor": taken.tensor, **settings}.items():
        made.attribute.append(helper.make_attribute(name, value))
    made.attribute.append(
        onnx.AttributeProto(name="shape", type=onnx.AttributeProto.INTS, ints=taken.shape)
    )
    return made


def is_take(node: onnx.NodeProto) -> bool:
    """Whether the node cuts a tensor out of the symbols of a whole segment."""
    return node.domain == DOMAIN and node.op_type == "TakeTensor"


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
