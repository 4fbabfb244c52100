# SPDX-License-Identifier: Apache-2.0
"""From blocks as rows back to the weight's own dimensions."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from passes.chain_builder import ChainBuilder
from passes.schemes.partition import Partition


def unfolded(builder: ChainBuilder, value: ir.Value, part: Partition) -> ir.Value:
    """``value`` [scales, block_size] without its padding, in ``part.shape``."""

    def numbers(*values: int) -> ir.Value:
        return builder.initializer(np.array(values, np.int64))

    if part.padding:
        size = prod(part.shape)
        value = builder.node("Reshape", [value, numbers(size + part.padding)])
        value = builder.node("Slice", [value, numbers(0), numbers(size)])
    return builder.node("Reshape", [value, numbers(*part.shape)])
