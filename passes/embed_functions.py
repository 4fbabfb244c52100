# SPDX-License-Identifier: Apache-2.0
"""Adds the bodies of the custom operators to a model, so that stock ONNX Runtime runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import onnx_ir as ir

from passes.errors import SettingsError
from passes.function_bodies import function_bodies
from passes.operators import DOMAIN, DOMAIN_VERSION, WIDE_DECODERS
from runtime.wide import has_trellis

Portable = Literal["auto", "always", "never"]


class EmbedFunctions(ir.passes.InPlacePass):
    """Adds a model-local function of standard ONNX operators for every operator of the toolkit that
    is used.

    Rules:
      1. ``always`` adds them; ``never`` removes them; ``auto`` adds them where they take at most
         ``limit`` of the model's bytes, and removes them otherwise.
      2. Bodies already there are replaced only if they differ.
      3. Only bodies of models with trellis sets (FORMAT.md 2.9) know them: that takes bytes and
         time.

    Left alone: functions of other domains, models without an operator of the toolkit.
    """

    def __init__(self, portable: Portable = "auto", limit: float = 0.01) -> None:
        super().__init__()
        if portable not in ("auto", "always", "never"):
            raise SettingsError(f"portable must be auto, always or never, not {portable!r}")
        self.portable, self.limit = portable, limit

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes ``model`` in place."""
        names = {node.op_type for node in _nodes(model) if node.domain == DOMAIN}
        present = {key: body for key, body in model.functions.items() if key[0] == DOMAIN}
        wanted: dict[ir.OperatorIdentifier, ir.Function] = {}
        if names and self.portable != "never":
            opset = model.opset_imports.get("", 13)
            protos = function_bodies(names, opset, trellis=_has_trellis(model))
            num_bytes = sum(proto.ByteSize() + 4 for proto in protos)
            if self.portable == "always" or num_bytes <= self.limit * model_bytes(model):
                bodies = [ir.serde.deserialize_function(proto) for proto in protos]
                wanted = {body.identifier(): body for body in bodies}
        if {k: _bytes(f) for k, f in wanted.items()} == {k: _bytes(f) for k, f in present.items()}:
            return ir.passes.PassResult(model, modified=False)
        for key in present:
            del model.functions[key]
        model.functions.update(wanted)
        if wanted:
            model.opset_imports[DOMAIN] = DOMAIN_VERSION
        return ir.passes.PassResult(model, modified=True)


def model_bytes(model: ir.Model) -> int:
    """Bytes of all initializers and nodes of the graphs, functions not counted; near the file's
    size."""
    total = 0
    for graph in model.graphs():
        tensors = (value.const_value for value in graph.initializers.values())
        total += sum(tensor.nbytes for tensor in tensors if tensor is not None)
    return int(total + sum(ir.serde.serialize_node(node).ByteSize() for node in model.graph))


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes of the graphs and of functions of other domains."""
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for key, body in model.functions.items():
        if key[0] != DOMAIN:
            yield from ir.traversal.RecursiveGraphIterator(body)


def _has_trellis(model: ir.Model) -> bool:
    """Whether a blob of the model has trellis sets."""
    blobs = (
        n.inputs[0] for n in _nodes(model) if n.domain == DOMAIN and n.op_type in WIDE_DECODERS
    )
    constants = (blob.const_value for blob in blobs if blob is not None)
    return any(words is not None and has_trellis(words.numpy()) for words in constants)


def _bytes(function: ir.Function) -> bytes:
    return bytes(ir.serde.serialize_function(function).SerializeToString(deterministic=True))
