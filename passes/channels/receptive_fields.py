# SPDX-License-Identifier: Apache-2.0
"""The part of its input that a convolution sees from a place of its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.channels.trace import integers

Array = npt.NDArray[Any]


def receptive_fields(
    node: ir.Node,
    given: Array,
    kernel: tuple[int, ...],
    sizes: tuple[int, ...],
    sample: Array,
    spots: Sequence[Array],
) -> Array:
    """What Conv ``node`` sees, (places, channels * taps), taps in the order of the weight.

    Args:
        node: The convolution.
        given: Its input, (samples, channels, spatial axes ...).
        kernel: Taps per spatial axis.
        sizes: Spatial sizes of its output.
        sample: The sample of each place, integers (places,).
        spots: For each spatial axis the position of each place in the output.
    """
    axes = len(kernel)
    strides = integers(node, "strides") or [1] * axes
    dilations = integers(node, "dilations") or [1] * axes
    pads = _pads(node, given.shape[2:], sizes, kernel, strides, dilations)
    if any(low or high for low, high in pads):
        given = np.pad(given, [(0, 0), (0, 0), *pads])
    lead = [1] * axes
    picks = []
    for axis in range(axes):
        taps = np.arange(kernel[axis]) * dilations[axis]
        index = spots[axis][:, None] * strides[axis] + taps
        picks.append(index.reshape(-1, *lead[:axis], kernel[axis], *lead[axis + 1 :]))
    windows = np.moveaxis(given, 1, -1)[(sample.reshape(-1, *lead), *picks)]
    # The channels came last.
    return np.asarray(np.moveaxis(windows, -1, 1).reshape(len(windows), -1))


def _pads(
    node: ir.Node,
    given: tuple[int, ...],
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
) -> list[tuple[int, int]]:
    attribute = node.attributes.get("auto_pad")
    way = "NOTSET" if attribute is None else attribute.as_string()
    axes = len(kernel)
    if way == "VALID":
        return [(0, 0)] * axes
    if way == "NOTSET":
        pads = integers(node, "pads") or [0] * (2 * axes)
        return [(pads[axis], pads[axis + axes]) for axis in range(axes)]
    found = []
    for axis in range(axes):
        reach = (sizes[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(reach - given[axis], 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if way == "SAME_UPPER" else (more, less))
    return found
