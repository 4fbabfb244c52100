# SPDX-License-Identifier: Apache-2.0
"""Quantised + 1 % sparse against quantised alone, at equal bytes, on real networks.

    python -m benchmarks.sums [NAME ...] [--fraction 0.01]

Each quantiser compresses every weight of a network, alone and with a sparse part (`Sum`, fitted by
alternating) that holds the given share of the entries at 8 bits. Bytes are those of the whole file,
really encoded. Errors are squared and relative: of the weights (sum over all of them), and of the
outputs on real inputs (mean over the outputs). Alone, the curve of a quantiser over its settings is
interpolated (logarithm of the error over bytes) at the bytes of the sum: a ratio below 1 is a gain.
"same" compares with the same quantiser alone, "best" with the best of all quantisers alone, which
include entropy-coded uniform quantisation by step. "-" where the curve does not reach these bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np
import onnx_ir as ir

import passes
from benchmarks.networks import session_options
from models.fetch import DataUnavailable
from models.network import Feeds, Network
from models.zoo import network
from passes.schemes import Codebook, FitContext, Parameters, Scheme, Sum, Uniform

SMALL = ("basic_pitch", "magika", "mnist_cnn", "silero_vad", "cifar_cnn", "open_nsfw")
_MIN_ELEMENTS = 4096  # a weight below this size is kept
_SAMPLES = 16
_SETTLED = 1e-30


@dataclass(frozen=True)
class Largest:
    """A sparse part: the entries of largest magnitude at 8 bits, all others exactly 0."""

    fraction: float

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        """Symbols of 8 bits, nearly all of them 0, which the wide coder stores as such."""
        size = np.abs(weight.astype(np.float32))
        kept = max(1, round(self.fraction * weight.size))
        limit = np.partition(size.reshape(-1), -kept)[-kept]
        return Uniform(bits=8).fit(np.where(size >= limit, weight, np.zeros((), weight.dtype)))


@dataclass(frozen=True)
class Point:
    """One setting: bytes of the file, relative squared error of weights and outputs."""

    num_bytes: int
    weights: float
    outputs: float


def quantisers() -> dict[str, Sequence[tuple[str, Scheme]]]:
    """Settings of each quantiser, coarse to fine; the first ones are also tried in a sum."""
    steps = (2.5, 2.0, 1.5, 1.2, 1.0, 0.7, 0.5, 0.3, 0.15, 0.07)
    return {
        "uniform, per tensor": [(f"{b} bits", Uniform(bits=b)) for b in range(2, 9)],
        "uniform, per row": [
            (f"{b} bits", Uniform(bits=b, granularity="row")) for b in range(2, 9)
        ],
        "codebook": [
            (f"{k} entries", Codebook(entries=k, iterations=30)) for k in (2, 3, 4, 8, 16, 32, 64)
        ],
        "uniform, by step": [(f"{s} rms", Uniform(relative_step=s)) for s in steps],
    }


class Measured:
    """A network whose weights are compressed by one scheme after the other."""

    def __init__(self, entry: Network, feeds: Feeds) -> None:
        self.path, self.feeds = entry.onnx_path(), feeds
        model = self._read()
        self.arrays = {
            weight.name: np.array(weight.array())
            for weight in passes.select_weights(model)
            if weight.role not in ("integer", "minor") and weight.num_elements >= _MIN_ELEMENTS
        }
        self.wanted = self._run(model)

    def point(self, scheme: Scheme) -> Point:
        """Compresses every weight by ``scheme``."""
        model = self._read()
        fitted = {name: scheme.fit(array) for name, array in self.arrays.items()}
        changed, total = 0.0, 0.0
        for name, array in self.arrays.items():
            decoded = fitted[name].decode()
            changed += float(np.sum((array - decoded).astype(np.float64) ** 2))
            total += float(np.sum(array.astype(np.float64) ** 2))
            model.graph.initializers[name].const_value = ir.Tensor(decoded, name=name)
        outputs = self._output_error(self._run(model))
        return Point(self._num_bytes(fitted), changed / total, outputs)

    def _num_bytes(self, fitted: Mapping[str, Parameters]) -> int:
        model = self._read()
        passes.EncodeWeights(fitted)(model)
        passes.CleanUp()(model)
        return int(ir.to_proto(model).ByteSize())

    def _output_error(self, found: list[np.ndarray]) -> float:
        errors = [
            np.sum((a.astype(np.float64) - b) ** 2) / max(np.sum(b.astype(np.float64) ** 2), 1e-30)
            for a, b in zip(found, self.wanted, strict=True)
            if b.dtype.kind == "f"
        ]
        return max(float(np.mean(errors)), _SETTLED)

    def _read(self) -> ir.Model:
        model = passes.read_model(self.path).model
        passes.LiftWeights()(model)
        return model

    def _run(self, model: ir.Model) -> list[np.ndarray]:
        import onnxruntime

        data = ir.to_proto(model).SerializeToString()
        session = onnxruntime.InferenceSession(
            data, session_options(0), providers=["CPUExecutionProvider"]
        )
        return [np.asarray(array) for array in session.run(None, self.feeds)]


def at_bytes(curve: Sequence[Point], num_bytes: int, what: str) -> float:
    """The error of a curve at ``num_bytes``; infinite outside of it."""
    ordered = sorted(curve, key=lambda point: point.num_bytes)
    places = [point.num_bytes for point in ordered]
    if not places[0] <= num_bytes <= places[-1]:
        return math.inf
    errors = [math.log(max(getattr(point, what), _SETTLED)) for point in ordered]
    return math.exp(float(np.interp(num_bytes, places, errors)))


def cell(ratio: float) -> str:
    """A ratio, "-" where the curve ends before."""
    return f"{ratio:7.2f}" if ratio else f"{'-':>7}"


def compare(name: str, fraction: float, settings: int) -> dict[str, list[str]]:
    """Prints the rows of a network; returns those where the sum has less error both of weights and
    of outputs, by what it is compared with."""
    entry = network(name)
    measured = Measured(entry, entry.feeds(_SAMPLES))
    kinds = quantisers()
    alone = {k: [measured.point(scheme) for _, scheme in v] for k, v in kinds.items()}
    winners: dict[str, list[str]] = {"same": [], "best": []}
    for kind, chosen in kinds.items():
        for label, scheme in chosen[:settings]:
            point = measured.point(Sum((scheme, Largest(fraction)), iterations=5))
            cells, ratios = [], dict[str, list[float]](same=[], best=[])
            for what in ("weights", "outputs"):
                error = getattr(point, what)
                errors = {k: at_bytes(curve, point.num_bytes, what) for k, curve in alone.items()}
                ratios["same"].append(error / errors[kind])
                ratios["best"].append(error / min(errors.values()))
                cells += [f"{error:10.2e}", cell(ratios["same"][-1]), cell(ratios["best"][-1])]
            for reference, (weights, outputs) in ratios.items():
                if 0 < weights < 1 and 0 < outputs < 1:
                    text = f"{name}, {kind}, {label}: weights {weights:.2f}, outputs {outputs:.2f}"
                    winners[reference].append(text)
            print(
                f"{name:18} {kind:20} {label:10} {point.num_bytes / 1e3:9.1f} {' '.join(cells)}",
                flush=True,
            )
    return winners


@click.command()
@click.argument("names", nargs=-1)
@click.option("--fraction", default=0.01, help="Share of the entries in the sparse part.")
@click.option("--settings", default=4, help="Settings of each quantiser tried in a sum.")
def main(names: tuple[str, ...], fraction: float, settings: int) -> None:
    """Compare sums with quantisation alone on real networks."""
    print(
        f"{'network':18} {'quantiser':20} {'+ sparse':10} {'kB':>9} "
        f"{'weights':>10} {'same':>7} {'best':>7} {'outputs':>10} {'same':>7} {'best':>7}"
    )
    winners: dict[str, list[str]] = {"same": [], "best": []}
    for name in names or SMALL:
        try:
            for reference, lines in compare(name, fraction, settings).items():
                winners[reference] += lines
        except DataUnavailable as error:
            print(f"{name:18} skipped: {error}")
    texts = {"same": "the same quantiser alone", "best": "every quantiser alone"}
    for reference, lines in winners.items():
        print(f"\nLess error of weights and of outputs than {texts[reference]}, at equal bytes:")
        print("\n".join(f"  {line}" for line in lines) or "  none")


if __name__ == "__main__":
    main()
