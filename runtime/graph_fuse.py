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
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from runtime.element_types import array_of_tensor
from runtime.errors import CodecError, ModelError
from runtime.graph_values import DOMAIN, Node, Scope, count_uses, drop_unused, scan
from runtime.wide import WideReader

_DECODERS = frozenset({"DecodeWide", "DecodeWide16"})
_TABLES = {"Gather": 0, "DecodeLookup": 1}  # which input is the table
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})


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
    root = scan(model.graph, overridable=model.ir_version >= 4)
    fuser = _Fuser(root, folder)
    fused = sum(fuser.fuse_chains(scope) for scope in root.walk())
    fuser.fuse_takes()
    drop_unused(root)
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

    def __init__(self, root: Scope, folder: str) -> None:
        self._root = root
        self._uses = count_uses(root)
        self._folder = folder
        self._readers: dict[str, WideReader] = {}

    def fuse_chains(self, scope: Scope) -> int:
        """Fuse the chains that end in the scope; return their number."""
        fused = 0
        for node in scope.nodes:
            new = None
            if node.domain in ("", "ai.onnx"):
                if node.op_type == "DequantizeLinear":
                    new = self._dequantize(scope, node)
                elif node.op_type == "Gather":
                    new = self._lookup(scope, node)
            if new is not None:
                replace_node(node, new)
                fused += 1
        return fused

    def fuse_takes(self) -> None:
        """Fuse the TakeTensor nodes whose symbols are still read after the fusing of chains."""
        drop_unused(self._root)
        for scope in self._root.walk():
            for node in scope.nodes:
                taken = self._place(scope, node) if is_take(node) else None
                if taken is not None:
                    replace_node(node, _fused(taken.op_type, node, taken, (), {}))

    def _dequantize(self, scope: Scope, node: Node) -> onnx.NodeProto | None:
        attributes = node.attributes()
        if attributes.get("output_dtype") or not self._is_float(scope, node.inputs[1]):
            return None
        taken = self._taken(scope, node.inputs[0])
        if taken is None:
            return None
        settings = {"axis": attributes.get("axis", 1)}
        if attributes.get("block_size"):
            settings["block_size"] = attributes["block_size"]
        return _fused("DecodeDequantize", node, taken, node.inputs[1:], settings)

    def _is_float(self, scope: Scope, name: str) -> bool:
        """Whether a value is known to be a constant float, or looked up in a table of them."""
        tensor, node = scope.initializer(name), scope.producer(name)
        if tensor is None and node is not None and node.op_type in _TABLES:
            tensor = scope.initializer(node.inputs[_TABLES[node.op_type]])
        return tensor is not None and tensor.data_type in _FLOATS

    def _lookup(self, scope: Scope, node: Node) -> onnx.NodeProto | None:
        tensor = scope.initializer(node.inputs[0])
        if tensor is None or len(tensor.dims) != 1 or tensor.data_type not in _FLOATS:
            return None
        offset = 0
        step = self._sole_producer(scope, node.inputs[1])
        if step is not None and step.op_type == "Add":
            terms = {name: self._scalar(scope, name) for name in step.inputs}
            sources = [name for name, term in terms.items() if term is None]
            if len(sources) != 1 or len(terms) != 2:
                return None
            offset = sum(term for term in terms.values() if term is not None)
            step = self._sole_producer(scope, sources[0])
        if step is None or step.op_type != "Cast":
            return None
        taken = self._taken(scope, step.inputs[0])
        if taken is None:
            return None
        return _fused("DecodeLookup", node, taken, node.inputs[:1], {"offset": offset})

    def _taken(self, scope: Scope, name: str) -> _Taken | None:
        """Return which tensor of which blob a value is, where it is one and read only once."""
        take = self._sole_producer(scope, name)
        if take is None or not is_take(take):
            return None
        return self._place(scope, take)

    def _place(self, scope: Scope, take: Node) -> _Taken | None:
        """Return which tensor of which constant blob a TakeTensor node takes."""
        decode = scope.producer(take.inputs[0])
        if decode is None or decode.domain != DOMAIN or decode.op_type not in _DECODERS:
            return None
        blob = decode.inputs[0]
        if blob not in self._readers:
            tensor = scope.initializer(blob)
            if tensor is None:
                return None
            self._readers[blob] = self._open(tensor)
        attributes = take.attributes()
        index = self._readers[blob].find(
            attributes["lane"], attributes["lanes"], attributes["steps"]
        )
        if index is None:
            return None
        op_type = "DecodeTensor16" if decode.op_type == "DecodeWide16" else "DecodeTensor"
        return _Taken(blob, index, attributes["shape"], op_type)

    def _open(self, blob: onnx.TensorProto) -> WideReader:
        try:
            return WideReader(array_of_tensor(blob, self._folder))
        except CodecError as error:
            raise ModelError(f"initializer '{blob.name}': {error}") from error

    def _sole_producer(self, scope: Scope, name: str) -> Node | None:
        return scope.producer(name) if self._uses[name] == 1 else None

    def _scalar(self, scope: Scope, name: str) -> int | None:
        tensor = scope.initializer(name)
        if tensor is None or math.prod(tensor.dims) != 1:
            return None
        return int(array_of_tensor(tensor, self._folder).reshape(-1)[0])


def replace_node(node: Node, new: onnx.NodeProto) -> None:
    """Put another node in a node's place; its outputs are the same."""
    node.proto.CopyFrom(new)
    node.op_type, node.domain, node.inputs = new.op_type, new.domain, list(new.input)


def _fused(
    op_type: str,
    node: Node,
    taken: _Taken,
    inputs: Sequence[str],
    settings: Mapping[str, int],
) -> onnx.NodeProto:
    """Make the node that takes the place of the last one of a chain."""
    made = onnx.NodeProto(
        op_type=op_type,
        domain=DOMAIN,
        name=node.label,
        input=[taken.blob, *inputs],
        output=node.outputs,
    )
    for name, value in {"tensor": taken.tensor, **settings}.items():
        made.attribute.append(helper.make_attribute(name, value))
    made.attribute.append(
        onnx.AttributeProto(name="shape", type=onnx.AttributeProto.INTS, ints=taken.shape)
    )
    return made


def is_take(node: Node) -> bool:
    """Whether the node cuts a tensor out of the symbols of a whole segment."""
    return node.domain == DOMAIN and node.op_type == "TakeTensor"
