# SPDX-License-Identifier: Apache-2.0
"""Second moments of a layer's input and wanted output, summed up run by run in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.activations import Activations
from passes.channels.layer_samples import Array, Floats, MatrixLayer
from passes.channels.original_rows import OriginalRows
from passes.errors import ModelError

FOLDS = 2
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
    """Moments of one layer, in two folds, so that what is fitted on one can be judged on the other:
    the first and the second half of the samples. Neighbours are often alike (crops of a photo,
    pieces of a recording), so samples that took turns would judge themselves."""

    def __init__(self, layer: MatrixLayer) -> None:
        size, outputs = layer.num_features + 1, layer.blocks()[-1][1].stop
        self.layer = layer
        self.folds = [
            Fold(np.zeros((size, size)), np.zeros((size, outputs)), np.zeros(outputs))
            for _ in range(FOLDS)
        ]

    def add(self, features: Array, wanted: Array, folds: Array) -> None:
        """Adds rows: (rows, features), (rows, outputs), and the number of each row's fold."""
        kind = np.float64 if features.shape[1] <= _EXACT_FEATURES else np.float32
        features, wanted = features.astype(kind, copy=False), wanted.astype(kind, copy=False)
        if not np.isfinite(features).all() or not np.isfinite(wanted).all():
            raise ModelError(f"{self.layer.input.name}: NaN or infinity on calibration data")
        for number, fold in enumerate(self.folds):
            mine = folds == number
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

    def centred(self, number: int | None = None) -> Fold:
        """One fold, or both together, the means taken off inputs and outputs where the layer has a
        bias to make up for them."""
        fold = self.whole() if number is None else self.folds[number]
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
    layers: Sequence[MatrixLayer],
    originals: OriginalRows,
) -> list[LayerMoments]:
    """Moments of ``layers`` of ``model``: inputs from it, wanted outputs from ``originals``, less
    what shortcuts give now."""
    found = [LayerMoments(layer) for layer in layers]
    drawn = [originals.drawn(layer, 0) for layer in layers]
    names = [str(layer.input.name) for layer in layers]
    names += [str(rows.shortcut.other.name) for rows in drawn if rows.shortcut is not None]
    feeds = activations.num_feeds
    for feed, arrays in enumerate(activations(model, list(dict.fromkeys(names)))):
        for moments, layer in zip(found, layers, strict=True):
            rows = originals.drawn(layer, feed)
            wanted = originals.wanted(rows)
            features = layer.features(arrays[str(layer.input.name)], rows.shape, rows.places)
            if rows.shortcut is not None:
                other = np.broadcast_to(arrays[str(rows.shortcut.other.name)], rows.shape)
                precise = np.result_type(wanted, np.float32)
                wanted = wanted.astype(precise) - layer.wanted(other, rows.places)
            moments.add(features, wanted, _folds(rows.places[0], rows.shape[0], feed, feeds))
    return found


def _folds(samples: Array, count: int, feed: int, feeds: int) -> Array:
    """The fold of each of ``samples``, numbers below ``count``, of one of several feeds."""
    if feeds > 1:
        return np.full(samples.size, feed * FOLDS // feeds)
    return samples * FOLDS // max(count, 1)
