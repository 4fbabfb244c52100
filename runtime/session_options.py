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
from onnx import TensorProto
from onnxruntime.capi import _pybind_state

from runtime.element_types import DTYPES, number_of
from runtime.graph_values import DOMAIN, graphs_of

_MARK_KEY = "toolkit.registered"
_PREFETCH_KEY = "toolkit.prefetch"
_PREFETCH_BYTES_KEY = "toolkit.prefetch_bytes"
_UNPACK_KEY = "toolkit.unpack"
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
DECODED_FILE = "decoded"
"""Where a model says that data lies which is handed over in memory."""

_TYPE_NAMES = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(bfloat16)": TensorProto.BFLOAT16,
    "tensor(int8)": TensorProto.INT8,
    "tensor(uint8)": TensorProto.UINT8,
    "tensor(int16)": TensorProto.INT16,
}
_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", DOMAIN})


def can_copy(options: onnxruntime.SessionOptions, model: onnx.ModelProto) -> bool:
    """Tell whether a copy of the options can run the model.

    A copy has every setting, but neither custom ops nor providers that were added to the options.
    """
    local = {function.domain for function in model.functions}
    foreign = {entry.domain for entry in model.opset_import} - _KNOWN_DOMAINS - local
    unused = not foreign or foreign.isdisjoint(_domains(model.graph))
    return unused and not options.has_providers()


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
    """Tell where the external data of a model lies that is handed over as bytes; "" for nowhere."""
    if folder and not has_folder(options):
        options.add_session_config_entry(_FOLDER_KEY, folder)


def has_folder(options: onnxruntime.SessionOptions) -> bool:
    """Tell whether the options say where external data lies."""
    return bool(_entry(options, _FOLDER_KEY))


def _entry(options: onnxruntime.SessionOptions, key: str) -> str:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:
        return ""


def wants_prefetch(options: onnxruntime.SessionOptions) -> bool:
    """Tell whether weights are to be decoded ahead of their use, which they are unless an entry
    says "0"."""
    return _entry(options, _PREFETCH_KEY) != "0"


def prefetch_bytes(options: onnxruntime.SessionOptions) -> int:
    """Return how many bytes of weights may be decoded together ahead of their use; 0 where no entry
    says so.

    Raises:
        ValueError: the entry is not a positive number.
    """
    entry = _entry(options, _PREFETCH_BYTES_KEY)
    if entry and not (entry.isdecimal() and 0 < int(entry) < 1 << 63):
        raise ValueError(f"{_PREFETCH_BYTES_KEY} is {entry!r}, expected a positive number of bytes")
    return int(entry or 0)


def wants_host(options: onnxruntime.SessionOptions | None) -> bool:
    """Tell whether an entry asks to decode on the host what a device could."""
    return options is not None and _entry(options, _UNPACK_KEY) == "host"


def mark(options: onnxruntime.SessionOptions) -> None:
    """Remember in the options that the op library is registered with them."""
    options.add_session_config_entry(_MARK_KEY, "1")


def is_marked(options: onnxruntime.SessionOptions) -> bool:
    """Tell whether these options were marked. A copy is marked too, but has no ops."""
    try:
        return bool(options.get_session_config_entry(_MARK_KEY) == "1")
    except RuntimeError:
        return False


def empty_like(meta: onnxruntime.NodeArg) -> npt.NDArray[Any] | None:
    """Return an array for an output, None where its shape is not fixed.

    NumPy asks for huge pages, which makes the first write to a large array several times faster.
    """
    element_type = _TYPE_NAMES.get(meta.type)
    if element_type is None or not all(isinstance(size, int) and size > 0 for size in meta.shape):
        return None
    return np.empty(meta.shape, DTYPES[element_type])


def value_of(array: npt.NDArray[Any]) -> onnxruntime.OrtValue:
    """Return a tensor in the memory of an array, which the tensor keeps; bfloat16 too."""
    element_type = number_of(array.dtype)
    if element_type == TensorProto.BFLOAT16:
        array = array.view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, element_type)


def array_of(value: onnxruntime.OrtValue) -> npt.NDArray[Any]:
    """Return a copy of a tensor; bfloat16 as ml_dtypes has it."""
    if value.element_type() != TensorProto.BFLOAT16:
        return np.array(value.numpy())
    bits = np.frombuffer(
        ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()), np.uint16
    )
    return bits.view(DTYPES[TensorProto.BFLOAT16]).reshape(value.shape())


def initializer_of(name: str, array: npt.NDArray[Any], *, inside: bool) -> TensorProto:
    """Return an initializer with the data of an array; where it is not to be inside, one whose data
    `add_initializers` hands over."""
    tensor = TensorProto(name=name, dims=array.shape, data_type=number_of(array.dtype))
    if inside:
        tensor.raw_data = array.tobytes()
        return tensor
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in (
        ("location", DECODED_FILE),
        ("offset", "0"),
        ("length", str(array.nbytes)),
    ):
        tensor.external_data.add(key=key, value=entry)
    return tensor


def add_initializers(
    options: onnxruntime.SessionOptions, weights: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Hand arrays to the sessions made with the options, in place of external data.

    ONNX Runtime copies them while a session is made. So the arrays must be kept until then, and
    the options be used for no later session.
    """
    options.add_external_initializers(list(weights), [value_of(a) for a in weights.values()])
