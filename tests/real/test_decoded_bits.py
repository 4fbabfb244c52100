# SPDX-License-Identifier: Apache-2.0
"""What the decoders of real networks make: the same bits in load mode, in stream mode, on stock
ONNX Runtime, and in the NumPy decoders that follow FORMAT.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

import runtime
import toolkit
from models.fetch import DataUnavailable
from models.zoo import NAMES, network
from runtime.graph_fuse import fuse
from runtime.oracle import decode_matrix
from runtime.oracle.adaptive import decode_adaptive
from runtime.oracle.fixed import decode_fixed
from runtime.oracle.huffman import decode_huffman
from toolkit.ort_session import quiet_options
from toolkit.verify import split_file

Array = npt.NDArray[Any]

ORACLES: dict[str, Callable[[npt.NDArray[np.uint16]], Array]] = {
    "DecodeWide": decode_matrix,
    "DecodeWide16": decode_matrix,
    "DecodeAdaptive": decode_adaptive,
    "DecodeHuffman": decode_huffman,
    "DecodeFixed": decode_fixed,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "4 bits": {"bits": 4},
    "10 bits": {"bits": 10},
    "lossless": {"lossless": True},
}
SMALL = 20_000_000
"""Bytes of the files that are also kept lossless, where the oracle takes longest."""


def outputs(model: onnx.ModelProto, with_library: bool) -> dict[str, Array]:
    """All outputs of a model without inputs."""
    options = quiet_options(1)
    if with_library:
        runtime.register(options)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {}), strict=True))


def assert_same_bits(found: dict[str, Array], wanted: dict[str, Array], way: str) -> None:
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, (way, name)
        assert found[name].shape == value.shape, (way, name)
        assert found[name].tobytes() == value.tobytes(), (way, name)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_way_decodes_to_the_bits_of_the_oracle(name: str, kind: str, tmp_path: Path) -> None:
    try:
        original = network(name).onnx_path()
    except DataUnavailable as error:
        pytest.skip(str(error))
    if kind == "lossless" and original.stat().st_size > SMALL:
        pytest.skip("the oracle would take minutes")
    path = tmp_path / "small.onnx"
    toolkit.compress(original, path, portable="always", jobs=1, **OPTIONS[kind])
    parts = split_file(path)
    assert parts is not None
    decoder = parts[0]
    weights = [output.name for output in decoder.graph.output]
    blobs = {tensor.name: tensor for tensor in decoder.graph.initializer}
    coded = [node for node in decoder.graph.node if node.op_type in ORACLES]
    assert coded
    # Every stream of symbols is looked at as well as every weight.
    decoder.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in coded)

    stock = onnx.ModelProto()
    stock.CopyFrom(decoder)
    stock.functions.extend(onnx.load(str(path)).functions)
    stream = outputs(decoder, with_library=True)
    assert_same_bits(outputs(stock, with_library=False), stream, "stock")
    for node in coded:
        words = onnx.numpy_helper.to_array(blobs[node.input[0]])
        symbols = ORACLES[node.op_type](words.view(np.uint16))
        assert_same_bits(
            {node.output[0]: symbols}, {node.output[0]: stream[node.output[0]]}, "oracle"
        )

    del decoder.graph.output[len(weights) :]
    fuse(decoder, "")
    load = outputs(decoder, with_library=True)
    assert_same_bits(load, {name: stream[name] for name in weights}, "load")
