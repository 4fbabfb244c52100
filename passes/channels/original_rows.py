# SPDX-License-Identifier: Apache-2.0
"""What layers gave in the original model, at places drawn once and kept for all later fits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from passes.activations import Activations
from passes.channels.layer_samples import Array, Indices, MatrixLayer
from passes.channels.shortcuts import Shortcut, shortcut_of
from passes.channels.trace import LayerUse

MIN_ROWS, ROWS_PER_FEATURE = 4096, 8
"""Rows that are drawn for a layer, over all feeds: whichever is more."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Rows of one layer in one feed.

    Attributes:
        places: Positions in the layer's output, see ``MatrixLayer.draw``.
        shape: That output's shape.
        shortcut: What is to be taken off what is wanted.
        offset: Where the wanted outputs, ``dtype`` (places, outputs), begin in the file.
    """

    places: tuple[Indices, ...]
    shape: tuple[int, ...]
    shortcut: Shortcut | None
    offset: int
    outputs: int
    dtype: np.dtype[Any]


class OriginalRows:
    """Outputs of layers in the original model, in a temporary file: they may take several times the
    memory of the model. For a layer at the end of a residual branch the sum is kept instead.

    Args:
        activations: Runs the model.
        original: The model as it was.
        layers: Which layers.
        seed: Of the draw.
    """

    def __init__(
        self,
        activations: Activations,
        original: ir.Model,
        layers: Sequence[MatrixLayer],
        seed: int,
    ) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self._drawn: dict[tuple[LayerUse, int], Drawn] = {}
        shortcuts = {layer.use: shortcut_of(layer) for layer in layers}
        names = [str(layer.output.name) for layer in layers]
        names += [str(shortcut.total.name) for shortcut in shortcuts.values() if shortcut]
        names = list(dict.fromkeys(names))
        for feed, arrays in enumerate(activations(original, names) if names else ()):
            for number, layer in enumerate(layers):
                rows = max(MIN_ROWS, ROWS_PER_FEATURE * layer.num_features)
                share = -(-rows // max(activations.num_feeds, 1))
                generator = np.random.default_rng((seed, feed, number))
                self._keep(layer, shortcuts[layer.use], arrays, feed, (share, generator))

    def _keep(
        self,
        layer: MatrixLayer,
        shortcut: Shortcut | None,
        arrays: Mapping[str, Array],
        feed: int,
        draw: tuple[int, np.random.Generator],
    ) -> None:
        output = arrays[str(layer.output.name)]
        if shortcut is not None:
            total = arrays[str(shortcut.total.name)]
            if total.shape == output.shape:
                output = total
            else:  # the layer's output is broadcast
                shortcut = None
        places = layer.draw(output.shape, *draw)
        wanted = np.ascontiguousarray(layer.wanted(output, places))
        self._drawn[layer.use, feed] = Drawn(
            places, output.shape, shortcut, self._file.tell(), wanted.shape[1], wanted.dtype
        )
        self._file.write(wanted.data)

    def drawn(self, layer: MatrixLayer, feed: int) -> Drawn:
        """Where the rows of a layer in a feed are."""
        return self._drawn[layer.use, feed]

    def wanted(self, drawn: Drawn) -> Array:
        """The outputs there, (places, outputs)."""
        self._file.seek(drawn.offset)
        count = drawn.places[0].size * drawn.outputs
        data = self._file.read(count * drawn.dtype.itemsize)
        return np.frombuffer(data, drawn.dtype).reshape(-1, drawn.outputs)

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()
