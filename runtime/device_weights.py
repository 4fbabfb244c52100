# SPDX-License-Identifier: Apache-2.0
"""Load mode on a device: weights are decoded where they are used, not in the host's memory.

The decoder of a cut model runs on the device into memory there, which the session then takes as its
initializers (`SessionOptions.add_initializer`). ONNX Runtime's optimisers work on the host: for
them the data of such a weight is a file without content, so that one that wants to read it fails,
and never works on other values. Therefore only weights are taken that no optimiser should want: of
MatMul, Gemm and Conv, without normalisations or constant factors behind them to fold in; and in a
second attempt, without the three products of one input that may be put together to an attention.
All others are decoded on the host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from runtime import graph_fuse, session_options
from runtime.errors import ModelError
from runtime.graph_rewrite import Cut
from runtime.graph_values import DOMAIN, Node, Scope, count_uses, scan
from runtime.library import register
from runtime.model_bytes import serialize

_PRODUCTS = ("MatMul", "Gemm", "Conv")
_DECODERS = ("DecodeDequantize", "DecodeLookup")
_FOLDED = ("Mul", "Add", "Sub", "Div")  # with a constant, into the weight before
_ATTENTION = 3  # products of one input
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclasses.dataclass(frozen=True)
class Device:
    """Where weights are decoded.

    Attributes:
        name: as ONNX Runtime's OrtValue names it, "cuda" or "cpu".
        number: of the device.
        provider: the execution provider and its options.
        careful: leave out what may become an attention.
    """

    name: str
    number: int
    provider: tuple[str, dict[str, Any]]
    careful: bool = False


@dataclasses.dataclass
class DeviceWeights:
    """Decoded weights on a device.

    Attributes:
        values: by name, in the memory of `held`.
        held: what owns the memory; it must live as long as sessions that use the values.
    """

    values: dict[str, onnxruntime.OrtValue]
    held: list[onnxruntime.OrtValue]

    def describe(self) -> list[onnx.TensorProto]:
        """The initializers of a model that takes them, with data in an empty file."""
        return [
            session_options.initializer_of(
                name,
                np.broadcast_to(np.zeros((), _DTYPES[value.data_type()]), value.shape()),
                inside=False,
            )
            for name, value in self.values.items()
        ]

    def hand_over(self, options: onnxruntime.SessionOptions) -> None:
        """Have sessions with these options use them."""
        for name, value in self.values.items():
            options.add_initializer(name, value)


@contextlib.contextmanager
def empty_data() -> Iterator[str]:
    """A folder with the empty file that `describe` names."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, session_options.DECODED_FILE).touch()
        yield folder


def choose(parts: Cut, folder: str = "", *, careful: bool = False) -> list[str]:
    """The weights of a cut model that are to be decoded on the device.

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
    if not names:
        return []
    decoder = parts.decoder(names)
    graph_fuse.fuse(decoder, folder)
    fused = {
        output
        for node in decoder.graph.node
        if node.domain == DOMAIN and node.op_type in _DECODERS
        for output in node.output
    }
    return [name for name in names if name in fused]


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


def decode_on(
    device: Device, parts: Cut, names: Sequence[str], folder: str = "", log_level: int = 4
) -> DeviceWeights:
    """Decode weights into memory of a device.

    Args:
        device: where.
        parts: a cut model.
        names: as `choose` returns them.
        folder: where its external data lies.
        log_level: severity from which on ONNX Runtime writes messages.

    Raises:
        ModelError: they cannot be decoded there; the message says why.
    """
    decoder = parts.decoder(names)
    graph_fuse.fuse(decoder, folder)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = max(log_level, 4)  # errors come as exceptions
    session_options.set_folder(options, folder)
    register(options)
    try:
        session = onnxruntime.InferenceSession(
            serialize(decoder), options, providers=[device.provider], enable_fallback=0
        )
        if session.get_providers()[0] != device.provider[0]:
            raise RuntimeError(f"the session has no {device.provider[0]}")
        binding, held = session.io_binding(), []
        for meta in session.get_outputs():
            kind = _DTYPES[meta.type]
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                meta.shape, kind, device.name, device.number
            )
            held.append(value)
            binding.bind_output(
                meta.name, device.name, device.number, kind, meta.shape, value.data_ptr()
            )
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        # ONNX Runtime takes only memory that is not the value's own.
        values = dict(zip(names, binding.get_outputs(), strict=True))
    except Exception as error:  # the classes of ONNX Runtime's errors share no other base
        raise ModelError(f"the weights cannot be decoded on the device: {error}") from error
    return DeviceWeights(values, held)
