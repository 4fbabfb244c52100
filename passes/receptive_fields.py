# SPDX-License-Identifier: Apache-2.0
"""What each output of a convolution sees of its input, for places drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


class ReceptiveFields:
    """The windows of a Conv node over inputs of one size.

    Args:
        node: The convolution.
        kernel: Its taps along each axis.
        given: Sizes of the input along each spatial axis.
        sizes: Sizes of the output, where known; else they follow from the others.
    """

    def __init__(
        self,
        node: ir.Node,
        kernel: Sequence[int],
        given: Sequence[int],
        sizes: Sequence[int] | None = None,
    ) -> None:
        axes = len(kernel)
        self.kernel = tuple(kernel)
        self.strides = _integers(node, "strides") or [1] * axes
        self.dilations = _integers(node, "dilations") or [1] * axes
        self.sizes = tuple(self._sizes(node, given) if sizes is None else sizes)
        self.pads = self._pads(node, given)

    def patches(self, given: Array, sample: Indices, spots: Sequence[Indices]) -> Array:
        """The windows of places in the output.

        Args:
            given: The convolution's input (samples, channels, spatial axes ...).
            sample: int64 (places,), and in ``spots`` as many for each spatial axis.

        Returns:
            (places, channels * taps), channels first.
        """
        if any(low or high for low, high in self.pads):
            given = np.pad(given, [(0, 0), (0, 0), *self.pads])
        axes = len(self.kernel)
        lead = [1] * axes
        picks = []
        for axis in range(axes):
            taps = np.arange(self.kernel[axis]) * self.dilations[axis]
            index = spots[axis][:, None] * self.strides[axis] + taps
            picks.append(index.reshape(-1, *lead[:axis], self.kernel[axis], *lead[axis + 1 :]))
        first = sample.reshape(-1, *lead)
        windows = np.moveaxis(given, 1, -1)[(first, *picks)]  # the channels come last
        return np.asarray(np.moveaxis(windows, -1, 1).reshape(len(windows), -1))

    def _reach(self, axis: int) -> int:
        """Input positions from the first to the last tap."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def _sizes(self, node: ir.Node, given: Sequence[int]) -> list[int]:
        way, pads = _way(node), _integers(node, "pads") or [0] * (2 * len(self.kernel))
        found = []
        for axis, size in enumerate(given):
            if way in ("SAME_UPPER", "SAME_LOWER"):
                found.append(-(-size // self.strides[axis]))
                continue
            padded = size if way == "VALID" else size + pads[axis] + pads[axis + len(self.kernel)]
            found.append(max((padded - self._reach(axis)) // self.strides[axis] + 1, 0))
        return found

    def _pads(self, node: ir.Node, given: Sequence[int]) -> list[tuple[int, int]]:
        way, axes = _way(node), len(self.kernel)
        if way == "VALID":
            return [(0, 0)] * axes
        if way == "NOTSET":
            pads = _integers(node, "pads") or [0] * (2 * axes)
            return [(pads[axis], pads[axis + axes]) for axis in range(axes)]
        found = []
        for axis in range(axes):
            reach = (self.sizes[axis] - 1) * self.strides[axis] + self._reach(axis)
            total = max(reach - given[axis], 0)
            less, more = total // 2, total - total // 2
            found.append((less, more) if way == "SAME_UPPER" else (more, less))
        return found


def draw_places(total: int, count: int, generator: np.random.Generator) -> Indices:
    """``count`` of ``total`` places drawn without replacement, ascending; all where there are
    fewer."""
    if count >= total:
        return np.arange(total, dtype=np.int64)
    return np.sort(generator.choice(total, count, replace=False)).astype(np.int64)


def _way(node: ir.Node) -> str:
    attribute = node.attributes.get("auto_pad")
    return "NOTSET" if attribute is None else attribute.as_string()


def _integers(node: ir.Node, name: str) -> list[int] | None:
    attribute = node.attributes.get(name)
    return None if attribute is None else [int(item) for item in attribute.as_ints()]
