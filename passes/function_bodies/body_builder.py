# SPDX-License-Identifier: Apache-2.0
"""Writes the nodes of a function body in few bytes, as it travels in every compressed file.

Names are one letter or two, the most used ones the shortest. All constants of one element type are
one Constant node, taken apart by one Split: six bytes each instead of forty.
"""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

DOMAIN = "toolkit"

INT8, UINT8, INT16 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16
INT32, INT64, UINT32 = TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32
BOOL, FLOAT = TensorProto.BOOL, TensorProto.FLOAT

NUM_OUTPUTS_SINCE = 18  # Split must be told the number of equal parts

Attribute = Any  # an int, a string, integers or a graph


class BodyBuilder:
    """Collects the nodes of one function.

    Args:
        opset: version of the standard operators.
        inputs: number of inputs of the function.

    Attributes:
        inputs: their names.
    """

    def __init__(self, opset: int, inputs: int) -> None:
        self.opset = opset
        self._count = itertools.count()
        self._pools: dict[int, dict[int, str]] = {}
        self._vectors: dict[tuple[int, ...], str] = {}
        self._heads: list[onnx.NodeProto] = []
        self._scopes: list[list[onnx.NodeProto]] = [[]]
        self.inputs = [self.name() for _ in range(inputs)]

    def name(self) -> str:
        """A name not used before; `function` replaces it by a short one."""
        return f"v{next(self._count)}"

    def number(self, kind: int, value: int) -> str:
        """A constant [1] of the given element type."""
        pool = self._pools.setdefault(kind, {})
        if value not in pool:
            pool[value] = self.name()
        return pool[value]

    def int32(self, value: int) -> str:
        return self.number(INT32, value)

    def uint32(self, value: int) -> str:
        return self.number(UINT32, value)

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        if len(values) == 1:
            return self.number(INT64, values[0])
        if values not in self._vectors:
            self._vectors[values] = self.name()
            self._heads.append(_constant(INT64, values, self._vectors[values]))
        return self._vectors[values]

    def op(
        self,
        kind: str,
        *inputs: str,
        domain: str = "",
        refs: dict[str, str] | None = None,
        **attributes: Attribute,
    ) -> str:
        """One node with one output; returns its name.

        Args:
            refs: attributes that are the function's own of the same name, and their types.
        """
        (output,) = self.ops(kind, 1, *inputs, domain=domain, **attributes)
        for key, type_name in (refs or {}).items():
            kind_number = onnx.AttributeProto.AttributeType.Value(type_name)
            attribute = onnx.AttributeProto(name=key, ref_attr_name=key, type=kind_number)
            self._scopes[-1][-1].attribute.append(attribute)
        return output

    def ops(
        self, kind: str, outputs: int, *inputs: str, domain: str = "", **attributes: Attribute
    ) -> list[str]:
        """One node with several outputs; returns their names."""
        names = [self.name() for _ in range(outputs)]
        node = helper.make_node(kind, inputs, names, domain=domain or None, **attributes)
        self._scopes[-1].append(node)
        return names

    def attribute(self, name: str, kind: str) -> str:
        """The function's attribute as a tensor; kind "value_int" or "value_ints"."""
        output = self.name()
        node = helper.make_node("Constant", [], [output])
        types = {"value_int": onnx.AttributeProto.INT, "value_ints": onnx.AttributeProto.INTS}
        node.attribute.append(onnx.AttributeProto(name=kind, ref_attr_name=name, type=types[kind]))
        self._heads.append(node)
        return output

    def cast(self, value: str, kind: int) -> str:
        return self.op("Cast", value, to=kind)

    def slice(self, value: str, start: str, end: str, axis: int = 0) -> str:
        """value[start:end] along an axis; start and end are int64 [1]."""
        return self.op("Slice", value, start, end, *([self.ints(axis)] if axis else []))

    def split(self, value: str, parts: int, axis: int = 0) -> list[str]:
        """Equal parts along an axis."""
        attributes: dict[str, Attribute] = {"axis": axis} if axis else {}
        if self.opset >= NUM_OUTPUTS_SINCE:
            attributes["num_outputs"] = parts
        return self.ops("Split", parts, value, **attributes)

    def before(self, value: str) -> str:
        """Along axis 0, the sum of the elements before each."""
        return self.op("CumSum", value, self.ints(0), exclusive=1)

    def range(self, length: str) -> str:
        """int64 [1, length]: 0, 1, ... length - 1; length is int64 [1]."""
        return self.op("NonZero", self.op("Expand", self.ints(1), length))

    def groups(self, length: str, starts: str, sizes: str) -> str:
        """int64 [length]: number of the group that holds each position.

        starts: int64 [m, 1], ascending; sizes: int64 [m], positive.
        """
        zeros = self.op("Expand", self.ints(0), length)
        marks = self.op("ScatterND", zeros, starts, self.op("Div", sizes, sizes))
        return self.op("Sub", self.op("CumSum", marks, self.ints(0)), self.ints(1))

    def flat(self, value: str) -> str:
        """The value as a vector."""
        return self.op("Reshape", value, self.ints(-1))

    def column(self, value: str) -> str:
        """A vector [n] as [n, 1]."""
        return self.op("Unsqueeze", value, self.ints(1))

    def u32(self, words: str) -> str:
        """int64 [n] from pairs of words, int64 [2 n]."""
        return self.op("MatMul", self.op("Reshape", words, self.ints(-1, 2)), self.ints(1, 65536))

    def open_graph(self) -> None:
        """The nodes from here to `close_graph` belong to a subgraph."""
        self._scopes.append([])

    def close_graph(
        self,
        outputs: Sequence[str],
        inputs: Sequence[tuple[str, int]] = (),
        types: Sequence[tuple[int, int]] = (),
        scalars: int = 0,
    ) -> onnx.GraphProto:
        """The subgraph opened last.

        Args:
            outputs: names.
            inputs: name and element type of each input.
            types: element type and rank of each output; Scan wants them.
            scalars: this many of the first inputs are scalars; Loop wants to know.
        """
        graph = onnx.GraphProto(name="g", node=self._scopes.pop())
        for number, (name, kind) in enumerate(inputs):
            info = graph.input.add(name=name)
            info.type.tensor_type.elem_type = kind
            if number < scalars:
                info.type.tensor_type.shape.SetInParent()
        for name in outputs:
            graph.output.append(onnx.ValueInfoProto(name=name))
        for output, (kind, rank) in zip(graph.output, types, strict=False):
            output.type.tensor_type.elem_type = kind
            for _ in range(rank):
                output.type.tensor_type.shape.dim.add()
        return graph

    def function(
        self,
        name: str,
        outputs: Sequence[str],
        attributes: Sequence[str] = (),
        defaults: dict[str, int] | None = None,
    ) -> onnx.FunctionProto:
        """The function in the toolkit's domain.

        Args:
            attributes: names of the attributes a caller must give.
            defaults: attributes a caller may leave out.
        """
        nodes = [*self._heads, *self._constants(), *self._scopes[0]]
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in _all_nodes(nodes)):
            opsets.append(helper.make_opsetid(DOMAIN, 1))
        function = onnx.FunctionProto(
            name=name,
            domain=DOMAIN,
            input=self.inputs,
            output=outputs,
            node=nodes,
            opset_import=opsets,
            attribute=attributes,
        )
        for key, value in (defaults or {}).items():
            function.attribute_proto.append(helper.make_attribute(key, value))
        _shorten_names(function)
        return function

    def _constants(self) -> Iterator[onnx.NodeProto]:
        for kind, pool in self._pools.items():
            if len(pool) == 1:
                yield _constant(kind, list(pool), *pool.values())
                continue
            whole = self.name()
            yield _constant(kind, list(pool), whole)
            count: dict[str, Any] = {}
            if self.opset >= NUM_OUTPUTS_SINCE:
                count["num_outputs"] = len(pool)
            yield helper.make_node("Split", [whole], list(pool.values()), **count)


def _constant(kind: int, values: Sequence[int], name: str) -> onnx.NodeProto:
    tensor = TensorProto(data_type=kind, dims=[len(values)])
    # The typed fields keep a small number in one byte, raw_data could not.
    if kind == INT64:
        tensor.int64_data.extend(values)
    elif kind == UINT32:
        tensor.uint64_data.extend(values)
    else:
        tensor.int32_data.extend(values)
    return helper.make_node("Constant", [], [name], value=tensor)


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _all_nodes(attribute.g.node)


def _shorten_names(function: onnx.FunctionProto) -> None:
    """Give the most used values the shortest names."""
    graphs = [a.g for n in _all_nodes(function.node) for a in n.attribute if a.HasField("g")]
    infos = [info for graph in graphs for info in (*graph.input, *graph.output)]
    lists = [function.input, function.output]
    for node in _all_nodes(function.node):
        lists += [node.input, node.output]
    used = Counter(name for names in lists for name in names)
    used.update(info.name for info in infos)
    letters = itertools.chain(
        string.ascii_letters, map("".join, itertools.product(string.ascii_letters, repeat=2))
    )
    del used[""]  # an input left out
    short = {"": ""} | {name: next(letters) for name, _ in used.most_common()}
    for names in lists:
        names[:] = [short[name] for name in names]
    for info in infos:
        info.name = short[info.name]
