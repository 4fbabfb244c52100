# SPDX-License-Identifier: Apache-2.0
"""Second moments of a layer's input and wanted output, summed up run by run in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.activations import Activations
from passes.channels.layer_samples import Array, Floats, MatrixLayer
from passes.errors import ModelError

FOLDS = 2
MIN_ROWS, ROWS_PER_FEATURE = 4096, 4
"""Rows that are drawn for a layer, over all feeds: whichever is more."""
MAX_FEATURES = 6144
"""Layers with more features are not measured: their moments would take more than 600 MB."""
_EXACT_FEATURES = 512


@dataclass
class Fold:
    """Sums over rows x (features, and a last one that is always 1) and wanted outputs y.

    ``inputs`` is the sum of x x', float64 (features + 1, features + 1); ``cross`` that of x y',
    (features + 1, outputs); ``energy`` that of y y per output, (outputs,).
    """

    inputs: Floats
    cross: Floats
    energy: Floats

    @property
    def count(self) -> float:
        """Rows."""
        return float(self.inputs[-1, -1])


class LayerMoments:
    """Moments of one layer, in two folds: samples take turns, so that what is fitted on one fold
    can be judged on the other."""

    def __init__(self, layer: MatrixLayer) -> None:
        size, outputs = layer.num_features + 1, layer.blocks()[-1][1].stop
        self.layer = layer
        self.folds = [
            Fold(np.zeros((size, size)), np.zeros((size, outputs)), np.zeros(outputs))
            for _ in range(FOLDS)
        ]

    def add(self, given: Array, output: Array, rows: int, feed: int, seed: int) -> None:
        """Adds ``rows`` rows of one feed: ``given`` from the model as it is, ``output`` from the
        model as it was."""
        generator = np.random.default_rng((seed, feed))
        features, wanted, samples = self.layer.rows(given, output, rows, generator)
        kind = np.float64 if features.shape[1] <= _EXACT_FEATURES else np.float32
        features, wanted = features.astype(kind, copy=False), wanted.astype(kind, copy=False)
        if not np.isfinite(features).all() or not np.isfinite(wanted).all():
            raise ModelError(f"{self.layer.input.name}: NaN or infinity on calibration data")
        for number, fold in enumerate(self.folds):
            mine = (samples + feed) % FOLDS == number
            x = np.append(features[mine], np.ones((int(mine.sum()), 1), kind), axis=1)
            y = wanted[mine]
            fold.inputs += x.T @ x
            fold.cross += x.T @ y
            fold.energy += np.einsum("no,no->o", y, y, dtype=np.float64)

    def whole(self) -> Fold:
        """Both folds together."""
        first, second = self.folds
        return Fold(
            first.inputs + second.inputs, first.cross + second.cross, first.energy + second.energy
        )

    def centred(self) -> Fold:
        """Both folds together, the means taken off inputs and outputs where the layer has a bias to
        make up for them."""
        fold = self.whole()
        if self.layer.bias is None or not fold.count:
            return fold
        means, outputs = fold.inputs[-1] / fold.count, fold.cross[-1] / fold.count
        return Fold(
            fold.inputs - fold.count * np.outer(means, means),
            fold.cross - fold.count * np.outer(means, outputs),
            np.maximum(fold.energy - fold.count * outputs**2, 0),
        )


def measure(
    activations: Activations,
    model: ir.Model,
    original: ir.Model,
    layers: Sequence[MatrixLayer],
    seed: int,
) -> list[LayerMoments]:
    """Moments of ``layers`` of ``model``: inputs from it, wanted outputs from ``original``."""
    found = [LayerMoments(layer) for layer in layers]
    inputs = list(dict.fromkeys(str(layer.input.name) for layer in layers))
    outputs = list(dict.fromkeys(str(layer.output.name) for layer in layers))
    runs = zip(activations(model, inputs), activations(original, outputs), strict=True)
    for feed, (given, wanted) in enumerate(runs):
        for moments in found:
            layer = moments.layer
            rows = max(MIN_ROWS, ROWS_PER_FEATURE * layer.num_features)
            share = -(-rows // max(activations.num_feeds, 1))
            x, y = given[str(layer.input.name)], wanted[str(layer.output.name)]
            moments.add(x, y, share, feed, seed)
    return found
