# SPDX-License-Identifier: Apache-2.0
"""From the folded form of a weight, [A, B, F], back to its own axes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.chains.inner import reshaped
from passes.schemes.transform_fold import Folding


def unfolded_axes(builder: ChainBuilder, value: ir.Value, folding: Folding) -> ir.Value:
    """What ``Folding.unfold`` does: Transpose where axes move, and Reshape."""
    order = [int(axis) for axis in np.argsort(folding.order)]
    if order != sorted(order):
        value = reshaped(builder, value, [folding.split[i] for i in folding.order])
        value = builder.node("Transpose", [value], {"perm": order})
    return reshaped(builder, value, folding.shape)
