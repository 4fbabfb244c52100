# SPDX-License-Identifier: Apache-2.0
"""Writes the nodes of a function body with the shortest names there are.

The bytes of a body count, as it travels in every compressed file: names are one or two letters and
equal constants are shared.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence

import onnx
from onnx import TensorProto, helper

DOMAIN = "toolkit"

INT8, UINT8, INT16 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16
INT32, INT64, UINT32 = TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32
BOOL, FLOAT = TensorProto.BOOL, TensorProto.FLOAT

Attribute = int | str | Sequence[int] | onnx.GraphProto | onnx.TensorProto


def _short_names() -> Iterator[str]:
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            yield "".join(letters)


class BodyBuilder:
    """Collects the nodes of one function.

    Args:
        inputs: number of inputs of the function.

    Attributes:
        inputs: their names.
    """

    def __init__(self, inputs: int) -> None:
        self._names = _short_names()
        self._constants: dict[tuple[int, tuple[int, ...] | None, tuple[int, ...]], str] = {}
        self._heads: list[onnx.NodeProto] = []
        self._scopes: list[list[onnx.NodeProto]] = [[]]
        self.inputs = [self.name() for _ in range(inputs)]

    def name(self) -> str:
        """A name not used before."""
        return next(self._names)

    def constant(self, kind: int, values: Sequence[int], scalar: bool = False) -> str:
        """A constant of the given element type: a vector, or a scalar of one value."""
        shape = () if scalar else (len(values),)
        key = (kind, shape, tuple(values))
        if key not in self._constants:
            self._constants[key] = self.name()
            # The typed field packs small numbers into a byte each, raw_data could not.
            tensor = TensorProto(data_type=kind, dims=shape)
            field = {INT64: "int64_data", UINT32: "uint64_data"}.get(kind, "int32_data")
            getattr(tensor, field).extend(values)
            name = self._constants[key]
            self._heads.append(helper.make_node("Constant", [], [name], value=tensor))
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(INT64, values)

    def int32(self, value: int) -> str:
        """An int32 scalar."""
        return self.constant(INT32, [value], scalar=True)

    def uint32(self, value: int) -> str:
        """A uint32 scalar."""
        return self.constant(UINT32, [value], scalar=True)

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
        """The value of an attribute of the function as a tensor; kind "value_int" or "value_ints"."""
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

    @property
    def axis(self) -> str:
        """Axis 0 as CumSum wants it."""
        return self.constant(INT64, [0], scalar=True)

    def before(self, value: str) -> str:
        """int64 [n]: sum of the elements before each."""
        return self.op("CumSum", value, self.axis, exclusive=1)

    def range(self, length: str) -> str:
        """int64 0, 1, ... length - 1; length is int64 [1]."""
        return self.before(self.op("Expand", self.ints(1), length))

    def groups(self, length: str, starts: str) -> str:
        """int32 [length]: number of the part that holds each position; `starts`, int64 [m], ascend."""
        zeros = self.op("Expand", self.constant(INT32, [0]), length)
        ones = self.op("Expand", self.constant(INT32, [1]), self.op("Shape", starts))
        marks = self.op("ScatterND", zeros, self.op("Unsqueeze", starts, self.ints(1)), ones)
        return self.op("Sub", self.op("CumSum", marks, self.axis), self.constant(INT32, [1]))

    def flat(self, value: str) -> str:
        """The value as a vector."""
        return self.op("Reshape", value, self.ints(-1))

    def open_graph(self) -> None:
        """The nodes from here to `close_graph` belong to a subgraph."""
        self._scopes.append([])

    def close_graph(
        self,
        inputs: Sequence[tuple[str, int]],
        outputs: Sequence[str],
        types: Sequence[tuple[int, int]] = (),
    ) -> onnx.GraphProto:
        """The subgraph opened last.

        Args:
            inputs: name and element type (0: left out) of each input.
            outputs: names.
            types: element type and rank of each output; Scan wants them.
        """
        graph = onnx.GraphProto(name="g", node=self._scopes.pop())
        for name, kind in inputs:
            graph.input.append(helper.make_tensor_value_info(name, kind, None))
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
        opset: int,
        attributes: Sequence[str] = (),
        defaults: dict[str, int] | None = None,
    ) -> onnx.FunctionProto:
        """The function in the toolkit's domain.

        Args:
            attributes: names of the attributes a caller must give.
            defaults: attributes a caller may leave out.
        """
        nodes = self._heads + self._scopes[0]
        opsets = [helper.make_opsetid("", opset)]
        if any(node.domain for node in nodes):
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
        return function
