# SPDX-License-Identifier: Apache-2.0
"""Copies of onnxruntime's session options, so that a caller's own are left as they are."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.capi import _pybind_state

from runtime.graph_values import DOMAIN, graphs_of

_MARK_KEY = "toolkit.registered"
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_ELEMENT_TYPES = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(float16)": onnx.TensorProto.FLOAT16,
    "tensor(bfloat16)": onnx.TensorProto.BFLOAT16,
    "tensor(int8)": onnx.TensorProto.INT8,
    "tensor(uint8)": onnx.TensorProto.UINT8,
    "tensor(int16)": onnx.TensorProto.INT16,
}
_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", DOMAIN})


def can_copy(options: onnxruntime.SessionOptions, model: onnx.ModelProto) -> bool:
    """Tell whether a copy of the options can run the model.

    A copy has every setting, but neither custom ops nor providers that were added to the options.
    """
    local = {function.domain for function in model.functions}
    return not options.has_providers() and _domains(model.graph) <= _KNOWN_DOMAINS | local


def _domains(graph: onnx.GraphProto) -> set[str]:
    domains = {node.domain for node in graph.node}
    for node in graph.node:
        for inner in graphs_of(node):
            domains |= _domains(inner)
    return domains


def copy(options: onnxruntime.SessionOptions | None) -> onnxruntime.SessionOptions:
    """Return a copy of the options; new ones for None.

    ONNX Runtime copies the options of a session when the session is made and hands out that copy,
    so a session of an empty model, which is never initialised, makes one.
    """
    if options is None:
        return onnxruntime.SessionOptions()
    empty = onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="empty"))
    empty.opset_import.add(domain="", version=13)
    session = _pybind_state.InferenceSession(options, empty.SerializeToString(), False, False)
    return session.session_options


def for_decoder(options: onnxruntime.SessionOptions) -> onnxruntime.SessionOptions:
    """Return options for a session that runs once: the threads and the log level of `options`."""
    decoder = onnxruntime.SessionOptions()
    decoder.intra_op_num_threads = options.intra_op_num_threads
    decoder.log_severity_level = max(options.log_severity_level, 4)  # errors come as exceptions
    decoder.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    decoder.enable_cpu_mem_arena = False  # an arena would outlive the run with all its memory
    decoder.enable_mem_pattern = False
    return decoder


def set_folder(options: onnxruntime.SessionOptions, folder: str) -> None:
    """Tell where the external data of a model lies that is handed over as bytes."""
    try:
        options.get_session_config_entry(_FOLDER_KEY)
    except RuntimeError:
        options.add_session_config_entry(_FOLDER_KEY, folder)


def mark(options: onnxruntime.SessionOptions) -> None:
    """Remember in the options that the op library is registered with them."""
    options.add_session_config_entry(_MARK_KEY, "1")


def is_marked(options: onnxruntime.SessionOptions) -> bool:
    """Tell whether these options were marked. A copy is marked too, but has no ops."""
    try:
        return bool(options.get_session_config_entry(_MARK_KEY) == "1")
    except RuntimeError:
        return False


def empty_like(meta: onnxruntime.NodeArg) -> onnxruntime.OrtValue | None:
    """Return a tensor for an output, in memory of NumPy's; None where its shape is not fixed.

    NumPy asks for huge pages, which makes the first write to a large tensor several times faster.
    """
    element_type = _ELEMENT_TYPES.get(meta.type)
    if element_type is None or not all(isinstance(size, int) and size > 0 for size in meta.shape):
        return None
    dtype = np.uint16 if element_type == onnx.TensorProto.BFLOAT16 else _dtype(element_type)
    array = np.empty(meta.shape, dtype)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, element_type)


def _dtype(element_type: int) -> np.dtype[Any]:
    return onnx.helper.tensor_dtype_to_np_dtype(element_type)


def memory_of(value: onnxruntime.OrtValue) -> npt.NDArray[Any]:
    """Return a tensor as an array that shares its memory; bfloat16 comes as uint16.

    The tensor must be kept while the array is used.
    """
    if value.element_type() != onnx.TensorProto.BFLOAT16:
        array: npt.NDArray[Any] = value.numpy()
        return array
    size = value.tensor_size_in_bytes()
    if size == 0:
        return np.empty(value.shape(), np.uint16)
    memory = (ctypes.c_uint8 * size).from_address(value.data_ptr())
    return np.ctypeslib.as_array(memory).view(np.uint16).reshape(value.shape())


def add_initializers(
    options: onnxruntime.SessionOptions, weights: Mapping[str, onnxruntime.OrtValue]
) -> None:
    """Hand tensors to the sessions made with the options, in place of external data.

    ONNX Runtime wants memory that it does not own, and copies it while a session is made. So the
    tensors must be kept until then, and the options be used for no later session.
    """
    foreign = [
        onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            memory_of(value), value.element_type()
        )
        for value in weights.values()
    ]
    options.add_external_initializers(list(weights), foreign)
