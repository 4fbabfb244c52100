# SPDX-License-Identifier: Apache-2.0
"""Says in fewer bytes what nodes do: shapes that are constants, attributes that are defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from passes.chain_builder import short_names
from passes.lift_weights import values_of

# Attributes whose default the schema leaves to the operator: what it is where all entries are so.
_FILLED: dict[tuple[str, str], int] = {
    (op_type, name): value
    for op_type in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
    for name, value in (("pads", 0), ("strides", 1), ("dilations", 1), ("output_padding", 0))
}
_SHAPED_BY_WEIGHT = ("Conv", "ConvTranspose")


class SimplifyNodes(ir.passes.InPlacePass):
    """Makes what exporters write shorter, without changing any value.

    Rules, in this order:
      1. A Reshape to a computed shape of which at most one dimension is unknown, those apart that
         are the input's own at the same place, gets a constant shape; one that keeps the first
         dimension and joins all others becomes Flatten.
      2. Attributes that are the default of their operator go, and kernel shapes of convolutions,
         which their weights have.

    Left alone: values without a known shape, dimensions of 0, operators of other domains, weights
    of convolutions whose shape is not known.

    Example:
        >>> model = ir.from_onnx_text('''
        ... <ir_version: 10, opset_import: ["" : 21]>
        ... g (float[n,2,3] x) => (float[n,6] y)
        ... { s = Shape <end = 1> (x)  r = Constant <value_ints = [6]> ()
        ...   t = Concat <axis = 0> (s, r)  y = Reshape <allowzero = 1> (x, t) }''')
        >>> SimplifyNodes()(model).modified
        True
        >>> [node.op_type for node in model.graph]
        ['Shape', 'Constant', 'Concat', 'Flatten']
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Changes ``model`` in place; what is no longer used is for CleanUp to remove."""
        names = short_names(v.name for graph in model.graphs() for v in values_of(graph) if v.name)
        opset = model.opset_imports.get("", 13)
        modified = False
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            if node.domain not in ("", "ai.onnx"):
                continue
            if node.op_type == "Reshape":
                modified |= _constant_shape(model.graph, node, names)
            modified |= _without_defaults(node, opset)
        return ir.passes.PassResult(model, modified=modified)


def _constant_shape(graph: ir.Graph, node: ir.Node, names: Any) -> bool:
    given, shape, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if given is None or shape is None or given.shape is None or output.shape is None:
        return False
    before, after = list(given.shape), list(output.shape)
    if 0 in before or 0 in after:
        return False
    if len(after) == 2 and len(before) > 1 and _same(before[0], after[0]) and node.graph is graph:
        flat = ir.Node("", "Flatten", [given], name=node.name, outputs=[ir.Value()])
        flat.outputs[0].shape, flat.outputs[0].type = output.shape, output.type
        _replace(graph, node, flat)
        return True
    if shape.const_value is not None and shape.is_initializer():
        return False
    wanted = []
    for place, size in enumerate(after):
        if isinstance(size, int):
            wanted.append(size)
        else:
            wanted.append(0 if place < len(before) and _same(before[place], size) else -1)
    if wanted.count(-1) > 1:
        return False
    if wanted.count(-1) == 0 and wanted.count(0) == 1:
        wanted[wanted.index(0)] = -1
    tensor = ir.Tensor(np.array(wanted, np.int64))
    value = ir.Value(
        name=next(names),
        const_value=tensor,
        shape=ir.Shape([len(wanted)]),
        type=ir.TensorType(ir.DataType.INT64),
    )
    graph.register_initializer(value)
    node.replace_input_with(1, value)
    node.attributes.pop("allowzero", None)
    return True


def _same(first: Any, second: Any) -> bool:
    """Whether two dimensions are known to be equal."""
    if isinstance(first, int) or isinstance(second, int):
        return bool(first == second)
    return first.value is not None and first.value == second.value


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    name = old.outputs[0].name
    graph.insert_before(old, new)
    old.outputs[0].replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    graph.remove(old, safe=True)
    old.outputs[0].name = None
    new.outputs[0].name = name


def _without_defaults(node: ir.Node, opset: int) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    modified = False
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref() or not _is_default(node, name, attribute, schema):
            continue
        node.attributes.pop(name)
        modified = True
    return modified


def _is_default(node: ir.Node, name: str, attribute: ir.Attr, schema: Any) -> bool:
    if name == "kernel_shape" and node.op_type in _SHAPED_BY_WEIGHT:
        weight = node.inputs[1]
        return weight is not None and weight.shape is not None
    filled = _FILLED.get((node.op_type, name))
    if filled is not None:
        return all(entry == filled for entry in attribute.as_ints())
    if name not in schema.attributes:
        return False
    default = schema.attributes[name].default_value
    if default.type == onnx.AttributeProto.UNDEFINED:
        return False
    value = onnx.helper.get_attribute_value(default)
    if isinstance(value, bytes):
        value = value.decode()
    found = attribute.value
    return bool(np.array_equal(np.asarray(found), np.asarray(value)))
