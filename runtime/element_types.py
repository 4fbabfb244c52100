# SPDX-License-Identifier: Apache-2.0
"""ONNX's numbers of element types and the NumPy types of weights."""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

DTYPES: Final[dict[int, np.dtype[Any]]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
"""The types that blobs, and what stands behind them, have."""

_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


def number_of(dtype: np.dtype[Any]) -> int:
    """Return ONNX's number of a type."""
    known = _NUMBERS.get(dtype)
    return helper.np_dtype_to_tensor_dtype(dtype) if known is None else known
