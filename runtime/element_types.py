# SPDX-License-Identifier: Apache-2.0
"""Tensors of ONNX as arrays of NumPy."""

from __future__ import annotations

import sys
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

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


def array_of_tensor(tensor: TensorProto, folder: str) -> npt.NDArray[Any]:
    """Return the data of a tensor, not to be written to.

    Args:
        tensor: an initializer.
        folder: where external data lies.
    """
    dtype = DTYPES.get(tensor.data_type)
    if dtype is not None and tensor.data_location == TensorProto.DEFAULT:
        content = tensor.raw_data
        if content and sys.byteorder == "little":  # much faster than onnx's function
            return np.frombuffer(content, dtype).reshape(tensor.dims)
    return np.asarray(numpy_helper.to_array(tensor, folder))
