# SPDX-License-Identifier: Apache-2.0
"""Weights as ONNX sparse initializers: the floats that are not zero, and their indices.

ONNX Runtime makes such an initializer dense when it loads the model (measured, 1.31: of any
operator's input, float32, float16 and bfloat16, with flat or with multi-dimensional indices), so
that it costs bytes of the file only. onnx_ir knows dense initializers only; the mark made here is
what `model_to_proto` writes a sparse one for.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from passes.schemes import Parameters
from passes.select_weights import FLOATS, Weight

MARK = "sparse"
INDEX_BYTES = 8
_HEADER_BYTES = 40


def sparse_bytes(weight: Weight, values: np.ndarray) -> int | None:
    """Bytes of ``values`` as the sparse initializer of ``weight``; None for integers, of which ONNX
    Runtime has none."""
    if weight.dtype not in FLOATS:
        return None
    kept = int(np.count_nonzero(values))
    return kept * (values.dtype.itemsize + INDEX_BYTES) + _HEADER_BYTES + 2 * len(weight.name)


def store_sparse(weight: Weight, parameters: Parameters) -> None:
    """Gives the initializer of ``weight`` its decoded values and marks it to be written sparse."""
    weight.value.const_value = ir.Tensor(
        parameters.decode(), dtype=weight.dtype, name=weight.name, shape=ir.Shape(weight.shape)
    )
    weight.value.meta[MARK] = True


def sparse_names(graph: ir.Graph) -> set[str]:
    """The names of the initializers that are written sparse."""
    return {name for name, value in graph.initializers.items() if value.meta.get(MARK)}
