# SPDX-License-Identifier: Apache-2.0
"""Deep Compression's LeNet tables, layer by layer: bytes at its sparsities and bits.

    python -m benchmarks.deep_compression

Published are Tables 2 and 3 of Han, Mao and Dally 2016, "Deep Compression", arXiv 1510.00149v5:
the share of weights kept, the bits of weights and of indices, and the rate after pruning,
quantisation and Huffman coding (P+Q+H); bytes are that rate of 4 bytes per weight. The networks
are trained here (`models.lenets`), for the paper's weights are not published.

Columns, all at the paper's sparsity and bits:
- paper: the published rate in bytes;
- its layout: what that layout takes for our weights: a codebook of 2^bits - 1 shared values and 0,
  its indices and 5-bit zero runs Huffman coded, two blobs with their headers;
- codebook: the same codebook, coding `auto`, each layer a file of its own: blob, header, codebook
  and the nodes that decode it;
- ours: uniform quantisation to the same bits, coding `auto`, counted in the same way.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from models.lenets import Name, error_percent, onnx_bytes, pruned_weights
from models.onnx_graph import FLOAT, GraphBuilder
from passes import CleanUp, EncodeWeights, PackingLimits, read_model, write_model
from passes.encode_weights import EncodeResult
from passes.pack_zero_runs import encode_runs
from passes.schemes import Codebook, CodebookParameters, FitContext, Parameters, Prune, Uniform
from passes.settings import Coding
from runtime import InferenceSession


@dataclass(frozen=True)
class Published:
    """A row of the paper: share of weights kept, bits of a shared weight, final rate in percent."""

    kept: float
    bits: int
    rate: float


PAPER: dict[Name, dict[str, Published]] = {
    "lenet_300_100": {
        "ip1": Published(0.08, 6, 2.32),
        "ip2": Published(0.09, 6, 3.04),
        "ip3": Published(0.26, 6, 12.70),
    },
    "lenet_5": {
        "conv1": Published(0.66, 8, 67.45),
        "conv2": Published(0.12, 8, 5.28),
        "ip1": Published(0.08, 5, 2.45),
        "ip2": Published(0.19, 5, 6.13),
    },
}
ERRORS = {"lenet_300_100": (1.64, 1.58), "lenet_5": (0.80, 0.74)}
RUN_BITS = 5
LAYOUT = Coding(coder="zero_run", run_bits=RUN_BITS, run_coder="huffman", value_coder="huffman")


def alone(name: str, weight: np.ndarray, fitted: Parameters, folder: Path) -> tuple[int, str]:
    """Bytes and coder of one layer in a file of its own: blob, header, side information, nodes."""
    graph = GraphBuilder("layer", opset=17)
    if weight.ndim == 4:
        value, shape = graph.conv("x", name, weight), ["batch", weight.shape[1], 28, 28]
        out: list[int | str] = ["batch", weight.shape[0], "h", "w"]
    else:
        value, shape = graph.matmul_add("x", name, weight), ["batch", weight.shape[0]]
        out = ["batch", weight.shape[1]]
    content = graph.finish({"x": (FLOAT, shape)}, {value: (FLOAT, out)})
    path = folder / "layer.onnx"
    path.write_bytes(content)
    model = read_model(path).model
    result = EncodeWeights({f"{name}.weight": fitted})(model)
    if not isinstance(result, EncodeResult) or not result.encoded:
        raise RuntimeError(f"{name} was not encoded")
    return result.encoded[0].num_bytes + result.shared_bytes, result.encoded[0].coder


def paper_layout_bytes(fitted: CodebookParameters) -> int:
    """Bytes of a codebook's indices in the paper's layout: two Huffman blobs and the codebook."""
    _, *blobs = encode_runs(fitted.symbols, LAYOUT, PackingLimits())
    return sum(blob.nbytes for blob in blobs) + fitted.codebook.nbytes


def whole_file(name: Name, fitted: dict[str, Parameters], folder: Path) -> tuple[int, float, float]:
    """Bytes of the network's compressed file with biases and all, and the test errors in percent
    of the float file and of this one."""
    import onnxruntime

    arrays = pruned_weights(name, {layer: row.kept for layer, row in PAPER[name].items()})
    plain = folder / "plain.onnx"
    plain.write_bytes(onnx_bytes(name, arrays))
    model = read_model(plain).model
    plan = {f"{layer}.weight": parameters for layer, parameters in fitted.items()}
    EncodeWeights(plan, minor_relative_step=0.02)(model)
    CleanUp()(model)
    num_bytes = write_model(model, folder / "small.onnx")
    providers = ["CPUExecutionProvider"]
    before = onnxruntime.InferenceSession(str(plain), providers=providers)
    after = InferenceSession(str(folder / "small.onnx"), providers=providers)
    return (
        num_bytes,
        error_percent(lambda feeds: before.run(None, feeds)),
        error_percent(lambda feeds: after.run(None, feeds)),
    )


def table(name: Name, folder: Path) -> bool:
    """Prints one network's table; whether every layer is below the paper."""
    arrays = pruned_weights(name, {layer: row.kept for layer, row in PAPER[name].items()})
    header = f"{name:14}{'weights':>9}{'kept':>7}{'bits':>6}"
    print(header + "".join(f"{n:>12}" for n in ("paper", "its layout", "codebook", "ours")))
    totals, below = np.zeros(4), True
    fitted: dict[str, Parameters] = {}
    for layer, row in PAPER[name].items():
        weight = arrays[f"{layer}.weight"]
        weight = weight.T.copy() if weight.ndim == 2 else weight
        context = FitContext(channel_axis=0 if weight.ndim == 4 else 1)
        shared = Prune(fraction=row.kept, inner=Codebook(entries=2**row.bits)).fit(weight, context)
        fitted[layer] = Prune(fraction=row.kept, inner=Uniform(bits=row.bits)).fit(weight, context)
        if not isinstance(shared.inner, CodebookParameters):
            raise RuntimeError("the inner scheme is a codebook")
        published = round(row.rate / 100 * 4 * weight.size)
        codebook, _ = alone(layer, weight, shared, folder)
        ours, coder = alone(layer, weight, fitted[layer], folder)
        sizes = (published, paper_layout_bytes(shared.inner), codebook, ours)
        totals += sizes
        below &= ours < published
        text = f"{layer:14}{weight.size:9,}{100 * row.kept:6.0f}%{row.bits:6}"
        print(text + "".join(f"{size:12,}" for size in sizes) + f"  {coder}", flush=True)
    print(f"{'all layers':36}" + "".join(f"{size:12,.0f}" for size in totals))
    num_bytes, before, after = whole_file(name, fitted, folder)
    original, final = ERRORS[name]
    print(
        f"whole file, biases and graph included: {num_bytes:,} bytes; test error {before:.2f} -> "
        f"{after:.2f} % (paper {original:.2f} -> {final:.2f} %)\n"
    )
    return below


@click.command()
def main() -> None:
    """Deep Compression's LeNet tables; exit code 1 where a layer is not below the paper."""
    with tempfile.TemporaryDirectory() as folder:
        below = [table(name, Path(folder)) for name in PAPER]
    raise SystemExit(0 if all(below) else 1)


if __name__ == "__main__":
    main()
