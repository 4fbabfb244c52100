# SPDX-License-Identifier: Apache-2.0
"""Fewer and shorter decode nodes, for files of a few kilobytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from passes import operators
from passes.chain_builder import short_names
from passes.lift_weights import values_of
from runtime.wide import WideReader, has_trellis

_DEQUANTIZE_INT16_SINCE = 21
_CAST_USERS = ("DequantizeLinear", "Cast")


class CompactChains(ir.passes.InPlacePass):
    """Writes the decode chains of a small model in fewer bytes; weights decode to the same bits.

    Rules, in this order:
      1. A wide segment of up to ``most_tensors`` tensors and ``most_symbols`` symbols is decoded by
         an operator for each tensor: DecodeDequantize where DequantizeLinear follows, else
         DecodeTensor. Stock ONNX Runtime then decodes the segment once for each, which is why only
         small ones are.
      2. A Cast of a stream to int8 goes where DequantizeLinear takes int16 as well.
      3. Vectors that are a whole stream and share a scale are dequantised together and then divided
         by Split.

    Left alone: segments with trellis sets, chains with zero points, values that something else
    reads too.

    Run EncodeWeights first, CleanUp and EmbedFunctions behind.
    """

    def __init__(self, *, most_tensors: int = 8, most_symbols: int = 1 << 21) -> None:
        super().__init__()
        self.most_tensors, self.most_symbols = most_tensors, most_symbols

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes ``model`` in place."""
        modified = False
        for node in list(model.graph):
            if node.domain == operators.DOMAIN and node.op_type in operators.WIDE_DECODERS:
                modified |= self._take_from_blob(model.graph, node)
        if model.opset_imports.get("", 13) >= _DEQUANTIZE_INT16_SINCE:
            for node in list(model.graph):
                if node.op_type == "Cast" and node.domain == "":
                    modified |= _skip_cast(model.graph, node)
        streams = {
            node.inputs[0]
            for node in model.graph
            if node.domain == operators.DOMAIN and node.op_type == operators.TAKE_RANGE
        }
        for stream in streams:
            if stream is not None:
                modified |= _split(model, stream)
        return ir.passes.PassResult(model, modified=modified)

    def _take_from_blob(self, graph: ir.Graph, node: ir.Node) -> bool:
        blob, users = node.inputs[0], [user for user, _ in node.outputs[0].uses()]
        if blob is None or blob.const_value is None or len(users) > self.most_tensors:
            return False
        words = np.asarray(blob.const_value.numpy())
        if has_trellis(words) or any(user.op_type != operators.TAKE_TENSOR for user in users):
            return False
        reader = WideReader(words)
        if sum(prod(tensor.shape) for tensor in reader.tensors) > self.most_symbols:
            return False
        places = [
            reader.find(*(user.attributes[key].as_int() for key in ("lane", "lanes", "steps")))
            for user in users
        ]
        if None in places or node.outputs[0].is_graph_output():
            return False
        for user, place in zip(users, places, strict=True):
            _decode_tensor(graph, node, user, blob, int(place or 0))
        graph.remove(node, safe=True)
        return True


def _decode_tensor(
    graph: ir.Graph, wide: ir.Node, take: ir.Node, blob: ir.Value, place: int
) -> None:
    """Puts an operator that decodes tensor ``place`` of ``blob`` in the place of ``take``."""
    shape = take.attributes["shape"]
    attributes = [ir.AttrInt64("tensor", place), ir.AttrInt64s("shape", list(shape.as_ints()))]
    replaced, old = take, take.outputs[0]
    op_type, inputs = "DecodeTensor", [blob]
    if wide.op_type == operators.DECODE_WIDE16:
        op_type = "DecodeTensor16"
    follower = _only_user(old)
    if (
        follower is not None
        and follower.op_type == "DequantizeLinear"
        and len(follower.inputs) == 2
        and follower.inputs[1] is not None
        and set(follower.attributes) <= {"axis", "block_size"}
    ):
        op_type, replaced = "DecodeDequantize", follower
        inputs = [blob, follower.inputs[1]]
        attributes += list(follower.attributes.values())
    made = ir.Node(operators.DOMAIN, op_type, inputs, attributes, outputs=[ir.Value()])
    _put(graph, replaced, made)
    if replaced is not take:
        graph.remove(take, safe=True)


def _skip_cast(graph: ir.Graph, cast: ir.Node) -> bool:
    """Lets TakeRange and DequantizeLinear read the int16 symbols before a Cast to int8."""
    given, made = cast.inputs[0], cast.outputs[0]
    if given is None or cast.attributes["to"].as_int() != int(ir.DataType.INT8):
        return False
    maker = given.producer()
    small = set(operators.SMALL_DECODERS.values())
    if maker is None or maker.domain != operators.DOMAIN or maker.op_type not in small:
        return False
    readers: list[ir.Node] = []
    for user, _ in made.uses():
        if user.op_type != operators.TAKE_RANGE or user.domain != operators.DOMAIN:
            return False
        readers += [reader for reader, _ in user.outputs[0].uses()]
    if made.is_graph_output() or any(
        reader.op_type not in _CAST_USERS
        or (reader.op_type == "DequantizeLinear" and len(reader.inputs) > 2)
        for reader in readers
    ):
        return False
    made.replace_all_uses_with(given)
    graph.remove(cast, safe=True)
    return True


def _split(model: ir.Model, stream: ir.Value) -> bool:
    """Dequantises a stream of vectors with one scale at once, and divides it."""
    graph, takes = model.graph, [user for user, _ in stream.uses()]
    takes.sort(key=lambda take: take.attributes["first"].as_int() if take.attributes else 0)
    followers = [_only_user(take.outputs[0]) for take in takes]
    scale = _shared_scale(takes, followers)
    if scale is None or len(takes) < 2:
        return False
    end, sizes = 0, []
    for take in takes:
        shape = take.attributes["shape"].as_ints()
        if len(shape) != 1 or take.attributes["first"].as_int() != end:
            return False
        end += shape[0]
        sizes.append(shape[0])
    if _stream_length(stream) != end:
        return False
    names = short_names(v.name for g in model.graphs() for v in values_of(g) if v.name)
    lengths = ir.Value(
        name=next(names),
        const_value=ir.Tensor(np.array(sizes, np.int64)),
        shape=ir.Shape([len(sizes)]),
        type=ir.TensorType(ir.DataType.INT64),
    )
    graph.register_initializer(lengths)
    floats = ir.Node("", "DequantizeLinear", [stream, scale], outputs=[ir.Value()])
    parts = ir.Node("", "Split", [floats.outputs[0], lengths], outputs=[ir.Value() for _ in takes])
    floats.outputs[0].name = next(names)
    first = next(node for node in graph if node in takes)
    graph.insert_before(first, [floats, parts])
    for take, follower, part in zip(takes, followers, parts.outputs, strict=True):
        if follower is None:
            continue
        _hand_over(follower.outputs[0], part)
        graph.remove(follower, safe=True)
        graph.remove(take, safe=True)
    return True


def _shared_scale(takes: Sequence[ir.Node], followers: Sequence[ir.Node | None]) -> ir.Value | None:
    """The scalar by which all are dequantised."""
    scales: list[ir.Value] = []
    for take, follower in zip(takes, followers, strict=True):
        if take.op_type != operators.TAKE_RANGE or take.domain != operators.DOMAIN:
            return None
        if follower is None or follower.op_type != "DequantizeLinear" or follower.attributes:
            return None
        scale = follower.inputs[1]
        if len(follower.inputs) != 2 or scale is None or scale.const_value is None:
            return None
        scales.append(scale)
    first = scales[0].const_value if scales else None
    if first is None or first.size != 1 or len(first.shape.numpy()) != 0:
        return None
    return scales[0] if all(scale is scales[0] for scale in scales) else None


def _stream_length(stream: ir.Value) -> int | None:
    """Symbols of a stream, as its blob says."""
    from runtime.small import small_info

    maker = stream.producer()
    while maker is not None and maker.op_type == "Cast" and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    blob = None if maker is None or maker.domain != operators.DOMAIN else maker.inputs[0]
    if maker is None or maker.op_type not in operators.SMALL_DECODERS.values():
        return None
    if blob is None or blob.const_value is None:
        return None
    return small_info(np.asarray(blob.const_value.numpy()))[1]


def _only_user(value: ir.Value) -> ir.Node | None:
    users = [user for user, _ in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def _put(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """``new`` in the place of ``old``, with its output's name and users."""
    graph.insert_before(old, new)
    new.name = None
    _hand_over(old.outputs[0], new.outputs[0])
    graph.remove(old, safe=True)


def _hand_over(old: ir.Value, new: ir.Value) -> None:
    new.type, new.shape = old.type, old.shape
    new.meta.update(old.meta)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, None
    new.name = name
