# SPDX-License-Identifier: Apache-2.0
"""Models for `benchmarks.cuda_session`: a network in float16, and compressed for a GPU.

    python -m benchmarks.cuda_models FOLDER [--network NAME] [--copies N] [--bits B]

Writes FOLDER/NAME-xN.float16.onnx and FOLDER/NAME-xN.compressed.onnx, where they are not there yet,
and prints both paths. The networks are those of `models`. Copies of the layers of "minilm" follow
one another, so that 47 have a gigabyte of float16 weights; the weights of each copy are scaled by a
little more than those before it, so that none is stored once for several. Where only the compressed
file is there, the float16 one is what it expands to: no more has to be carried to a machine with a
GPU. Making them needs none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import numpy_helper

NETWORKS = ("minilm", "efficientnet_lite0", "open_nsfw")


@dataclasses.dataclass(frozen=True)
class Block:
    """Layers that can be repeated: the values and weights whose names begin so, what the first one
    reads and the last one gives."""

    prefix: str
    begin: str
    end: str


BLOCKS = {
    "minilm": Block("encoder.layer.", "embeddings.LayerNorm", "encoder.layer.5.output.LayerNorm")
}


def repeat(model: onnx.ModelProto, block: Block, copies: int) -> None:
    """Put further copies of a block behind it.

    Raises:
        click.UsageError: the model has no such block.
    """
    graph = model.graph
    nodes = [node for node in graph.node if node.name.startswith(block.prefix)]
    weights = [t for t in graph.initializer if t.name.startswith(block.prefix)]
    if not any(block.end in node.output for node in nodes):
        raise click.UsageError(f"no node of the block gives '{block.end}'")
    place = 1 + list(graph.node).index(next(n for n in nodes if block.end in n.output))
    readers = [node for node in graph.node if node not in nodes and block.end in node.input]
    end = block.end
    for copy in range(1, copies):

        def renamed(name: str, copy: int = copy, before: str = end) -> str:
            if name == block.begin:
                return before
            return f"copy{copy}.{name}" if name.startswith(block.prefix) else name

        for tensor in weights:
            value = numpy_helper.to_array(tensor)
            if value.dtype.kind == "f":
                value = value * value.dtype.type(1 + copy / 1024)
            graph.initializer.append(numpy_helper.from_array(value, renamed(tensor.name)))
        for node in nodes:
            made = onnx.NodeProto()
            made.CopyFrom(node)
            made.name = renamed(node.name)
            made.input[:] = [renamed(name) for name in node.input]
            made.output[:] = [f"copy{copy}.{name}" for name in node.output]
            graph.node.insert(place, made)
            place += 1
        end = f"copy{copy}.{block.end}"
    for node in readers:
        node.input[:] = [end if name == block.end else name for name in node.input]


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float16 weights, inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=False)


def make_models(network: str, folder: Path, copies: int = 1, bits: int = 4) -> tuple[Path, Path]:
    """The float16 file and the compressed one.

    Raises:
        models.fetch.DataUnavailable: the network's weights cannot be fetched.
    """
    import toolkit
    from models import zoo

    plain = folder / f"{network}-x{copies}.float16.onnx"
    compressed = folder / f"{network}-x{copies}.compressed.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    if not plain.exists() and compressed.exists():
        toolkit.expand(compressed, plain)
    elif not plain.exists():
        model = onnx.load(zoo.network(network).onnx_path())
        if copies > 1:
            repeat(model, BLOCKS[network], copies)
        onnx.save(to_float16(model), plain)
    if not compressed.exists():
        toolkit.compress(plain, compressed, bits=bits, for_gpu=True)
    return plain, compressed


def half_bytes(path: Path) -> int:
    """Bytes of the float16 weights of a file."""
    return sum(
        int(np.prod(t.dims)) * 2
        for t in onnx.load(path).graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT16
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--network", type=click.Choice(NETWORKS), default="minilm", show_default=True)
@click.option("--copies", type=click.IntRange(1), default=1, show_default=True)
@click.option("--bits", type=click.IntRange(2, 8), default=4, show_default=True)
def main(folder: Path, network: str, copies: int, bits: int) -> None:
    """Make a network in float16, and compressed for a GPU."""
    if copies > 1 and network not in BLOCKS:
        raise click.UsageError(f"layers can be repeated of {', '.join(BLOCKS)} only")
    plain, compressed = make_models(network, folder, copies, bits)
    print(f"{half_bytes(plain) / 1e6:.1f} MB of float16 weights")
    print(f"{plain}\n{compressed}")


if __name__ == "__main__":
    main()
