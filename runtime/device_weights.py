# SPDX-License-Identifier: Apache-2.0
"""Load mode on a device: weights are decoded where they are used, not in the host's memory.

The weights of a cut model are decoded on the device into one piece of memory there, which the
session then takes as its initializers (`SessionOptions.add_initializer`). ONNX Runtime's optimisers
work on the host: for them the data of such a weight is a file without content, so that one that
wants to read it fails, and never works on other values. Therefore only weights are taken that no
optimiser should want: of MatMul, Gemm and Conv, without normalisations or constant factors behind
them to fold in; and in a second attempt, without the three products of one input that may be put
together to an attention. All others are decoded on the host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from runtime import c_structures, graph_fuse, session_options
from runtime.decoder_session import run_decoder
from runtime.decoding_device import DecodingDevice, Memory, Work
from runtime.element_types import DTYPES, array_of_tensor, number_of
from runtime.errors import ModelError
from runtime.gpu_output import OutputSpec, bits_of, describe_output
from runtime.graph_rewrite import Cut
from runtime.graph_values import DOMAIN, Node, Scope, count_uses, drop_unused, scan
from runtime.wide import WideReader

Array = npt.NDArray[Any]

_PRODUCTS = ("MatMul", "Gemm", "Conv")
_DECODERS = ("DecodeDequantize", "DecodeLookup")
_FOLDED = ("Mul", "Add", "Sub", "Div")  # with a constant, into the weight before
_ATTENTION = 3  # products of one input
_ALIGNMENT = 256  # bytes, as CUDA's allocator aligns


@dataclasses.dataclass
class DeviceWeights:
    """Decoded weights on a device.

    Attributes:
        values: by name, in `memory`.
        memory: which must live as long as sessions that use the values.
    """

    values: dict[str, onnxruntime.OrtValue]
    memory: Memory

    def describe(self) -> list[onnx.TensorProto]:
        """The initializers of a model that takes them, with data in an empty file."""
        return [
            session_options.initializer_of(
                name,
                np.broadcast_to(np.zeros((), DTYPES[value.element_type()]), value.shape()),
                inside=False,
            )
            for name, value in self.values.items()
        ]

    def hand_over(self, options: onnxruntime.SessionOptions) -> None:
        """Have sessions with these options use them."""
        for name, value in self.values.items():
            options.add_initializer(name, value)


@dataclasses.dataclass
class Chosen:
    """Weights that are to be decoded on the device.

    Attributes:
        names: of the weights.
        decoder: a fused model that has nodes which make them.
    """

    names: list[str]
    decoder: onnx.ModelProto


@contextlib.contextmanager
def empty_data() -> Iterator[str]:
    """A folder with the empty file that `describe` names."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, session_options.DECODED_FILE).touch()
        yield folder


def choose(parts: Cut, folder: str = "", *, careful: bool = False) -> Chosen:
    """Choose the weights of a cut model that are to be decoded on the device.

    Args:
        parts: a cut model.
        folder: where its external data lies.
        careful: leave out what may become an attention.
    """
    root = scan(parts.rest.graph, overridable=parts.rest.ir_version >= 4)
    uses = count_uses(root)
    readers = {name: node for node in root.nodes for name in node.inputs}  # of what is read once
    products = Counter(
        node.inputs[0]
        for node in root.nodes
        if node.op_type in _PRODUCTS and node.inputs[1] in parts.weights
    )
    names = [
        node.inputs[1]
        for node in root.nodes
        if node.domain in ("", "ai.onnx")
        and node.op_type in _PRODUCTS
        and node.inputs[1] in parts.weights
        and uses[node.inputs[1]] == 1
        and not (careful and products[node.inputs[0]] >= _ATTENTION)
        and not _folds(root, node, readers if uses[node.outputs[0]] == 1 else {}, parts)
    ]
    decoder = parts.decoder(names)
    graph_fuse.fuse(decoder, folder)
    fused = {
        output
        for node in decoder.graph.node
        if node.domain == DOMAIN and node.op_type in _DECODERS
        for output in node.output
    }
    return Chosen([name for name in names if name in fused], decoder)


def _folds(root: Scope, node: Node, readers: dict[str, Node], parts: Cut) -> bool:
    """Whether an optimiser may work what follows a product into the product's weight."""
    follower = readers.get(node.outputs[0])
    if follower is None:
        return False
    if follower.op_type == "BatchNormalization":
        return True
    if node.op_type != "Conv" or follower.op_type not in _FOLDED:
        return False
    others = [name for name in follower.inputs if name != node.outputs[0]]
    return all(root.is_constant(name) or name in parts.weights for name in others)


def decode_on(device: DecodingDevice, chosen: Chosen, folder: str = "") -> DeviceWeights:
    """Decode weights into memory of a device, all of them together.

    Args:
        device: where.
        chosen: what `choose` returned; at least one weight.
        folder: where the model's external data lies.

    Raises:
        ModelError: they cannot be decoded there; the message says why.
    """
    names, decoder = chosen.names, chosen.decoder
    root = scan(decoder.graph, overridable=decoder.ir_version >= 4)
    made = {output: node for node in root.nodes for output in node.outputs}
    nodes = [made[name] for name in names]
    try:
        tables = _tables(decoder, root, nodes, folder)
        at_tables, table_bytes = _places([table.nbytes for table in tables.values()])
        together = np.zeros(table_bytes, np.uint8)  # each copy to a device waits for it
        for table, place in zip(tables.values(), at_tables, strict=True):
            raw = np.ascontiguousarray(bits_of(table)).reshape(-1).view(np.uint8)
            together[place : place + raw.size] = raw
        held = device.allocate(table_bytes)  # until all is decoded
        held.upload(together)
        addresses = {
            name: held.address + place for name, place in zip(tables, at_tables, strict=True)
        }
        outputs = [_output(node, tables, addresses) for node in nodes]
        sizes = [math.prod(shape) * dtype.itemsize for _, shape, dtype in outputs]
        at, num_bytes = _places(sizes)
        memory, readers = device.allocate(num_bytes), _Readers(root, folder)
        works = [
            Work(
                readers.of(node.inputs[0]),
                node.attributes()["tensor"],
                output,
                memory.address + place,
                size,
            )
            for node, (output, _, _), place, size in zip(nodes, outputs, at, sizes, strict=True)
        ]
        device.decode(works)
        values = _values_at(
            device,
            {
                name: (memory.address + place, shape, dtype)
                for name, (_, shape, dtype), place in zip(names, outputs, at, strict=True)
            },
        )
    except Exception as error:  # the classes of ONNX Runtime's errors share no other base
        raise ModelError(f"the weights cannot be decoded on the device: {error}") from error
    return DeviceWeights(values, memory)


class _Readers:
    """Readers of a graph's blobs, each made once."""

    def __init__(self, root: Scope, folder: str) -> None:
        self._root, self._folder = root, folder
        self._readers: dict[str, WideReader] = {}

    def of(self, blob: str) -> WideReader:
        if blob not in self._readers:
            tensor = self._root.initializer(blob)
            assert tensor is not None  # else graph_fuse had left the node alone
            self._readers[blob] = WideReader(array_of_tensor(tensor, self._folder))
        return self._readers[blob]


def _tables(
    decoder: onnx.ModelProto, root: Scope, nodes: Sequence[Node], folder: str
) -> dict[str, Array]:
    """The scales, zero points and codebooks of nodes; those that are made by nodes themselves are
    made on the host."""
    wanted = list(dict.fromkeys(name for node in nodes for name in node.inputs[1:] if name))
    constant = {name: root.initializer(name) for name in wanted}
    tables = {name: array_of_tensor(tensor, folder) for name, tensor in constant.items() if tensor}
    computed = [name for name in wanted if name not in tables]
    if computed:
        rest = onnx.ModelProto()
        rest.CopyFrom(decoder)
        del rest.graph.output[:]
        rest.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
        drop_unused(scan(rest.graph, overridable=rest.ir_version >= 4))
        arrays = run_decoder(rest, folder, onnxruntime.SessionOptions())
        tables |= dict(zip(computed, arrays, strict=True))
    return tables


def _output(
    node: Node, tables: Mapping[str, Array], addresses: Mapping[str, int]
) -> tuple[c_structures.Output, list[int], np.dtype[Any]]:
    """What a node writes: for the device, and its shape and type."""
    attributes = node.attributes()
    shape = [int(size) for size in attributes["shape"]]
    first = node.inputs[1]
    table = tables[first]
    if node.op_type == "DecodeLookup":
        spec = OutputSpec("lookup", tuple(shape), offset=attributes.get("offset", 0))
        entries = addresses[first], table.itemsize, table.size
        return describe_output(spec, codebook=entries), shape, table.dtype
    spec = OutputSpec(
        table.dtype.name,
        tuple(shape),
        axis=attributes.get("axis", 1),
        block_size=attributes.get("block_size", 0),
    )
    zeros = node.inputs[2] if len(node.inputs) > 2 else ""
    output = describe_output(
        spec,
        scales=(addresses[first], table.dtype.name, table.shape),
        zero_points=(addresses[zeros], tables[zeros].dtype.name) if zeros else None,
    )
    return output, shape, table.dtype


def _places(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where values of so many bytes lie one behind the other, and the bytes of all."""
    places, end = [], 0
    for size in sizes:
        places.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return places, max(end, _ALIGNMENT)


def _values_at(
    device: DecodingDevice, places: Mapping[str, tuple[int, list[int], np.dtype[Any]]]
) -> dict[str, onnxruntime.OrtValue]:
    """ONNX Runtime's values of memory that is not theirs, by name: address, shape and type.

    It makes them for outputs that are bound to memory, so a session that never runs has outputs of
    these names.
    """
    graph = onnx.GraphProto(name="places")
    for kind in {number_of(dtype) for _, _, dtype in places.values()}:
        outputs = [name for name, (_, _, dtype) in places.items() if number_of(dtype) == kind]
        graph.input.append(onnx.helper.make_tensor_value_info(f"all.{kind}", kind, None))
        graph.node.append(onnx.helper.make_node("Split", [f"all.{kind}"], outputs))
        for name in outputs:
            graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    model = onnx.ModelProto(ir_version=8, graph=graph)
    model.opset_import.add(domain="", version=13)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for name, (address, shape, dtype) in places.items():
        binding.bind_output(name, device.name, device.number, dtype.type, shape, address)
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, binding.get_outputs(), strict=True))
    return {name: values[name] for name in places}
