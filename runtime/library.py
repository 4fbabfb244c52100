# SPDX-License-Identifier: Apache-2.0
"""The shared library of codecs and ONNX Runtime ops. Only this module loads it."""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import CodecError, DeviceError, LibraryError, Status

if TYPE_CHECKING:
    import onnxruntime

THREADS_KEY = "toolkit.threads"
"""Session configuration entry: threads of one decoding op; absent or "0" means one per core."""

_FILE_NAMES = {"win32": "toolkit_ops.dll", "darwin": "libtoolkit_ops.dylib"}

_i32, _i64, _pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class TensorToEncode(ctypes.Structure):
    """`tk_tensor`: A x B x C symbols in row-major order."""

    _fields_ = [
        ("symbols", _pointer),
        ("a", _i64),
        ("b", _i64),
        ("c", _i64),
        ("trellis", _i32),
        ("reserved", _i32),
    ]


class WideOptions(ctypes.Structure):
    """`tk_wide_options`."""

    _fields_ = [
        ("wide", _i32),
        ("contexts", _i32),
        ("classes", _i32),
        ("steps", _i32),
        ("threads", _i32),
        ("reserved", _i32),
    ]


class Search(ctypes.Structure):
    """`tk_search`."""

    _fields_ = [
        ("values", _pointer),
        ("importance", _pointer),
        ("kept", _pointer),
        ("a", _i64),
        ("b", _i64),
        ("c", _i64),
        ("rate_weight", ctypes.c_double),
        ("trellis", _i32),
        ("most", _i32),
        ("rounds", _i32),
        ("starts", _i32),
        ("threads", _i32),
        ("isa", _i32),
    ]


class FeatureBlock(ctypes.Structure):
    """`tk_feature_block`."""

    _fields_ = [
        ("targets", _pointer),
        ("coupling", _pointer),
        ("importance", _pointer),
        ("output_importance", _pointer),
        ("places", _pointer),
        ("kept", _pointer),
        ("features", _i64),
        ("outputs", _i64),
        ("stride", _i64),
        ("rate_weight", ctypes.c_double),
        ("most", _i32),
        ("refine", _i32),
    ]


class RatesInfo(ctypes.Structure):
    """`tk_rates_info`."""

    _fields_ = [
        ("rows", _i64),
        ("columns", _i64),
        ("classes", _i32),
        ("contexts", _i32),
        ("tables", _i32),
        ("low_bits", _i32),
    ]


class RatesModel(ctypes.Structure):
    """`tk_rates_model`."""

    _fields_ = [
        ("row_classes", _pointer),
        ("column_classes", _pointer),
        ("t1", _pointer),
        ("t2", _pointer),
        ("map", _pointer),
        ("bits", _pointer),
    ]


class WideInfo(ctypes.Structure):
    """`tk_wide_info`: the counts of FORMAT.md 2.2."""

    _fields_ = [
        ("num_tensors", _i64),
        ("num_lanes", _i64),
        ("num_blocks", _i64),
        ("num_steps", _i64),
        ("num_code_words", _i64),
        ("num_exceptions", _i64),
        ("side_words", _i64),
        ("wide", _i32),
        ("num_sets", _i32),
    ]


class WideTensorInfo(ctypes.Structure):
    """`tk_wide_tensor_info`."""

    _fields_ = [
        ("a", _i64),
        ("b", _i64),
        ("c", _i64),
        ("rows_per_lane", _i64),
        ("first_lane", _i64),
        ("num_lanes", _i64),
        ("code_words", _i64),
        ("set", _i32),
        ("low_bits", _i32),
        ("contexts", _i32),
        ("reserved", _i32),
    ]


class Dequantize(ctypes.Structure):
    """`tk_dequantize`."""

    _fields_ = [
        ("scales", _pointer),
        ("zero_points", _pointer),
        ("num_scales", _i64),
        ("inner", _i64),
        ("num_values", _i64),
        ("out_type", _i32),
    ]


class Output(ctypes.Structure):
    """`tk_output`: what becomes of the symbols that a GPU decodes."""

    _fields_ = [
        ("kind", _i32),
        ("scale_type", _i32),
        ("zero_type", _i32),
        ("reserved", _i32),
        ("scales", _pointer),
        ("zero_points", _pointer),
        ("codebook", _pointer),
        ("num_scales", _i64),
        ("inner", _i64),
        ("length", _i64),
        ("block", _i64),
        ("num_entries", _i64),
        ("offset", _i64),
        ("num_values", _i64),
    ]


class PlanInfo(ctypes.Structure):
    """`tk_plan_info`: the geometry of a launch."""

    _fields_ = [
        ("layout", _i32),
        ("grid", _i32),
        ("warps", _i32),
        ("shared_bytes", _i32),
        ("tables", _i32),
        ("entries", _i32),
        ("record_bytes", _i32),
        ("reserved", _i32),
        ("image_bytes", _i64),
        ("num_blocks", _i64),
    ]


class Packed(ctypes.Structure):
    """`tk_packed`: a product with a packed weight."""

    _fields_ = [
        ("x", _pointer),
        ("packed", _pointer),
        ("scales", _pointer),
        ("zeros", _pointer),
        ("codebook", _pointer),
        ("out", _pointer),
        ("batch", _i64),
        ("outputs", _i64),
        ("inputs", _i64),
        ("group_inputs", _i64),
        ("bits", _i32),
        ("zero", _i32),
    ]


class Unpacking(ctypes.Structure):
    """`tk_unpacking`: a packed weight as numbers again."""

    _fields_ = [
        ("packed", _pointer),
        ("scales", _pointer),
        ("zeros", _pointer),
        ("codebook", _pointer),
        ("out", _pointer),
        ("outputs", _i64),
        ("inputs", _i64),
        ("group_inputs", _i64),
        ("bits", _i32),
        ("type", _i32),
    ]


class CudaInfo(ctypes.Structure):
    """`tk_cuda_info`: what the library and the machine offer."""

    _fields_ = [
        ("built", _i32),
        ("runtime_version", _i32),
        ("driver_version", _i32),
        ("num_devices", _i32),
        ("capability", _i32),
        ("multiprocessors", _i32),
        ("shared_bytes", _i32),
        ("reserved", _i32),
        ("total_bytes", _i64),
        ("free_bytes", _i64),
        ("name", ctypes.c_char * 64),
        ("architectures", ctypes.c_char * 128),
        ("problem", ctypes.c_char * 160),
    ]


class LoadResult(ctypes.Structure):
    """`tk_load_result`."""

    _fields_ = [
        ("rest", _pointer),
        ("rest_bytes", _i64),
        ("names", _pointer),
        ("names_bytes", _i64),
        ("needs_folder", _i64),
        ("numbers", _pointer),
        ("num_numbers", _i64),
    ]


_words, _out_words = [_pointer, _i64], [ctypes.POINTER(_pointer), ctypes.POINTER(_i64)]
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "tk_status_text": (ctypes.c_char_p, [_i32]),
    "tk_best_isa": (_i32, []),
    "tk_crc32": (ctypes.c_uint32, [_pointer, _i64]),
    "tk_free": (None, [_pointer]),
    "tk_join_planes": (_i32, [ctypes.POINTER(_pointer), _i32, _i64, _i32, _pointer]),
    "tk_wide_encode": (
        _i32,
        [ctypes.POINTER(TensorToEncode), _i64, ctypes.POINTER(WideOptions), *_out_words],
    ),
    "tk_search_symbols": (
        _i32,
        [ctypes.POINTER(Search), _pointer, ctypes.POINTER(ctypes.c_double)],
    ),
    "tk_trellis_integers": (_i32, [_pointer, _i64, _i64, _pointer]),
    "tk_symbol_rates_learn": (
        _i32,
        [_pointer, _i64, _i64, _i64, _i32, ctypes.POINTER(_pointer)],
    ),
    "tk_symbol_rates_close": (None, [_pointer]),
    "tk_symbol_rates_total": (_i32, [_pointer, _pointer, ctypes.POINTER(ctypes.c_double)]),
    "tk_symbol_rates_get_info": (_i32, [_pointer, ctypes.POINTER(RatesInfo)]),
    "tk_symbol_rates_get_model": (_i32, [_pointer, ctypes.POINTER(RatesModel)]),
    "tk_round_features": (
        _i32,
        [ctypes.POINTER(FeatureBlock), _pointer, _i64, _pointer, _pointer],
    ),
    "tk_wide_open": (_i32, [*_words, ctypes.POINTER(_pointer)]),
    "tk_wide_close": (None, [_pointer]),
    "tk_wide_get_info": (_i32, [_pointer, ctypes.POINTER(WideInfo)]),
    "tk_wide_get_tensor": (_i32, [_pointer, _i64, ctypes.POINTER(WideTensorInfo)]),
    "tk_wide_decode_all": (_i32, [_pointer, _pointer, _i64, _i32, _i32]),
    "tk_wide_decode_tensors": (_i32, [_pointer, _pointer, _i64, _i32, _i32]),
    "tk_wide_decode_tensor": (_i32, [_pointer, _i64, _pointer, _i64, _i32, _i32]),
    "tk_wide_decode_dequantize": (
        _i32,
        [_pointer, _i64, ctypes.POINTER(Dequantize), _pointer, _i64, _i32, _i32],
    ),
    "tk_wide_decode_lookup": (
        _i32,
        [_pointer, _i64, _pointer, _i64, _i64, _i32, _i64, _pointer, _i64, _i32, _i32],
    ),
    "tk_plan_describe": (_i32, [_pointer, _i64, _i32, _i32, _i32, ctypes.POINTER(PlanInfo)]),
    "tk_emulate_decode": (
        _i32,
        [_pointer, _i64, _i32, ctypes.POINTER(Output), _pointer, _i64],
    ),
    "tk_packed_words": (_i64, [_i64, _i64, _i32]),
    "tk_pack_fields": (_i32, [_pointer, _i64, _i64, _i32, _pointer]),
    "tk_unpack_fields": (_i32, [_pointer, _i64, _i64, _i32, _pointer]),
    "tk_emulate_packed": (_i32, [ctypes.POINTER(Packed)]),
    "tk_cuda_packed": (_i32, [ctypes.POINTER(Packed), _pointer]),
    "tk_unpack_weight": (_i32, [ctypes.POINTER(Unpacking), _i32]),
    "tk_cuda_unpack_weight": (_i32, [ctypes.POINTER(Unpacking), _pointer]),
    "tk_prefetch_trace": (
        _i32,
        [_pointer, _i64, _pointer, _i64, _pointer, _i64, ctypes.POINTER(_i64)],
    ),
    "tk_cuda_get_info": (_i32, [_i32, ctypes.POINTER(CudaInfo)]),
    "tk_cuda_problem": (ctypes.c_char_p, []),
    "tk_cuda_open": (_i32, [_pointer, _i64, _i32, _i32, ctypes.POINTER(_pointer)]),
    "tk_cuda_close": (None, [_pointer]),
    "tk_cuda_decode": (_i32, [_pointer, ctypes.POINTER(Output), _pointer, _i64, _pointer]),
    "tk_cuda_decoded": (_i32, [_pointer]),
    "tk_cuda_describe": (
        _i32,
        [_pointer, ctypes.POINTER(PlanInfo), ctypes.POINTER(_i64), ctypes.POINTER(_i64)],
    ),
    "tk_small_info": (_i32, [*_words, ctypes.POINTER(_i32), ctypes.POINTER(_i64)]),
    "tk_small_decode": (_i32, [*_words, _pointer, _i64]),
    "tk_small_encode": (_i32, [_pointer, _i64, _i32, _i64, *_out_words]),
    "tk_load_open": (
        _i32,
        [_pointer, _i64, _i64, _i32, ctypes.POINTER(_pointer), ctypes.POINTER(_i64)],
    ),
    "tk_load_close": (None, [_pointer]),
    "tk_load_decode": (_i32, [_pointer, _pointer, _i64, _i32]),
    "tk_load_get_result": (_i32, [_pointer, ctypes.POINTER(LoadResult)]),
}


def library_path() -> str:
    """Return the path of the shared library, for `register_custom_ops_library` of any host.

    Raises:
        LibraryError: the package was installed without it.
    """
    path = Path(__file__).with_name(_FILE_NAMES.get(sys.platform, "libtoolkit_ops.so"))
    if not path.is_file():
        raise LibraryError(
            f"{path} is missing: install the package with `pip install .`, which builds it"
        )
    return str(path)


@functools.cache
def load() -> ctypes.CDLL:
    """Load the shared library and declare its functions.

    The global interpreter lock is released while a function runs.

    Raises:
        LibraryError: the library is missing or cannot be loaded.
    """
    path = library_path()
    try:
        library = ctypes.CDLL(path)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise LibraryError(f"{path} cannot be loaded: {error}") from error
    return library


def check(status: int, what: str) -> None:
    """Raise `CodecError` "<what>: <text>" unless the status is OK; `DeviceError` where the trouble
    is with a GPU."""
    if status == Status.OK:
        return
    if status == Status.MEMORY:
        raise MemoryError(what)
    text = load().tk_status_text(status).decode()
    if status in (Status.NO_DEVICE, Status.DEVICE_MEMORY, Status.DEVICE):
        problem = load().tk_cuda_problem().decode()
        raise DeviceError(f"{what}: {text}{f' ({problem})' if problem else ''}", Status(status))
    raise CodecError(f"{what}: {text}", Status(status))


def load_threads(options: onnxruntime.SessionOptions) -> int:
    """Return how many threads decode while a session is made; 0 for one per core, unless the
    session configuration entry `toolkit.threads` says another number."""
    try:
        entry = options.get_session_config_entry(THREADS_KEY)
    except RuntimeError:
        return 0
    return int(entry) if entry.isdecimal() else 0


def register(options: onnxruntime.SessionOptions) -> None:
    """Register the op library with session options, so that sessions made with them run its ops.

    The ops use as many threads as `intra_op_num_threads` says at this moment (0: one per core),
    unless the session configuration entry `toolkit.threads` was set before. Register an options
    object once: ONNX Runtime refuses a session whose options name a domain of ops twice.

    Raises:
        LibraryError: the library is missing or ONNX Runtime is too old for it.
    """
    try:
        options.get_session_config_entry(THREADS_KEY)
    except RuntimeError:
        options.add_session_config_entry(THREADS_KEY, str(options.intra_op_num_threads))
    path = library_path()
    try:
        options.register_custom_ops_library(path)
    except Exception as error:  # the classes of ONNX Runtime's errors share no other base
        raise LibraryError(f"{path} cannot be registered: {error}") from error
