# SPDX-License-Identifier: Apache-2.0
"""The shared library of codecs and ONNX Runtime ops. Only this module loads it."""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import c_structures
from runtime.errors import CodecError, DeviceError, LibraryError, Status

if TYPE_CHECKING:
    import onnxruntime

THREADS_KEY = "toolkit.threads"
"""Session configuration entry: threads of one decoding op; absent or "0" means one per core."""

_FILE_NAMES = {"win32": "toolkit_ops.dll", "darwin": "libtoolkit_ops.dylib"}

_i32, _i64, _pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p

_words, _out_words = [_pointer, _i64], [ctypes.POINTER(_pointer), ctypes.POINTER(_i64)]
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "tk_status_text": (ctypes.c_char_p, [_i32]),
    "tk_best_isa": (_i32, []),
    "tk_crc32": (ctypes.c_uint32, [_pointer, _i64]),
    "tk_free": (None, [_pointer]),
    "tk_join_planes": (_i32, [ctypes.POINTER(_pointer), _i32, _i64, _i32, _pointer]),
    "tk_wide_encode": (
        _i32,
        [
            ctypes.POINTER(c_structures.TensorToEncode),
            _i64,
            ctypes.POINTER(c_structures.WideOptions),
            *_out_words,
        ],
    ),
    "tk_search_symbols": (
        _i32,
        [ctypes.POINTER(c_structures.Search), _pointer, ctypes.POINTER(ctypes.c_double)],
    ),
    "tk_trellis_integers": (_i32, [_pointer, _i64, _i64, _pointer]),
    "tk_symbol_rates_learn": (
        _i32,
        [_pointer, _i64, _i64, _i64, _i32, ctypes.POINTER(_pointer)],
    ),
    "tk_symbol_rates_close": (None, [_pointer]),
    "tk_symbol_rates_total": (_i32, [_pointer, _pointer, ctypes.POINTER(ctypes.c_double)]),
    "tk_symbol_rates_get_info": (_i32, [_pointer, ctypes.POINTER(c_structures.RatesInfo)]),
    "tk_symbol_rates_get_model": (_i32, [_pointer, ctypes.POINTER(c_structures.RatesModel)]),
    "tk_round_features": (
        _i32,
        [ctypes.POINTER(c_structures.FeatureBlock), _pointer, _i64, _pointer, _pointer],
    ),
    "tk_wide_open": (_i32, [*_words, ctypes.POINTER(_pointer)]),
    "tk_wide_close": (None, [_pointer]),
    "tk_wide_get_info": (_i32, [_pointer, ctypes.POINTER(c_structures.WideInfo)]),
    "tk_wide_get_tensor": (_i32, [_pointer, _i64, ctypes.POINTER(c_structures.WideTensorInfo)]),
    "tk_wide_decode_all": (_i32, [_pointer, _pointer, _i64, _i32, _i32]),
    "tk_wide_decode_tensors": (_i32, [_pointer, _pointer, _i64, _i32, _i32]),
    "tk_wide_decode_tensor": (_i32, [_pointer, _i64, _pointer, _i64, _i32, _i32]),
    "tk_wide_decode_dequantize": (
        _i32,
        [_pointer, _i64, ctypes.POINTER(c_structures.Dequantize), _pointer, _i64, _i32, _i32],
    ),
    "tk_wide_decode_lookup": (
        _i32,
        [_pointer, _i64, _pointer, _i64, _i64, _i32, _i64, _pointer, _i64, _i32, _i32],
    ),
    "tk_plan_describe": (
        _i32,
        [_pointer, _i64, _i32, _i32, _i32, ctypes.POINTER(c_structures.PlanInfo)],
    ),
    "tk_emulate_decode": (
        _i32,
        [_pointer, _i64, _i32, ctypes.POINTER(c_structures.Output), _pointer, _i64],
    ),
    "tk_packed_words": (_i64, [_i64, _i64, _i32]),
    "tk_pack_fields": (_i32, [_pointer, _i64, _i64, _i32, _pointer]),
    "tk_unpack_fields": (_i32, [_pointer, _i64, _i64, _i32, _pointer]),
    "tk_emulate_packed": (_i32, [ctypes.POINTER(c_structures.Packed)]),
    "tk_cuda_packed": (_i32, [ctypes.POINTER(c_structures.Packed), _pointer]),
    "tk_unpack_weight": (_i32, [ctypes.POINTER(c_structures.Unpacking), _i32]),
    "tk_cuda_unpack_weight": (_i32, [ctypes.POINTER(c_structures.Unpacking), _pointer]),
    "tk_prefetch_trace": (
        _i32,
        [_pointer, _pointer, _i64, _i64, _pointer, _i64, _pointer, _i64, ctypes.POINTER(_i64)],
    ),
    "tk_cuda_get_info": (_i32, [_i32, ctypes.POINTER(c_structures.CudaInfo)]),
    "tk_cuda_problem": (ctypes.c_char_p, []),
    "tk_cuda_open": (_i32, [_pointer, _i64, _i32, _i32, ctypes.POINTER(_pointer)]),
    "tk_cuda_close": (None, [_pointer]),
    "tk_cuda_decode": (
        _i32,
        [_pointer, ctypes.POINTER(c_structures.Output), _pointer, _i64, _pointer],
    ),
    "tk_cuda_decode_all": (
        _i32,
        [ctypes.POINTER(c_structures.DecodeRequest), _i64, _pointer],
    ),
    "tk_cuda_verify": (_i32, [_pointer]),
    "tk_cuda_decoded": (_i32, [_pointer]),
    "tk_cuda_allocate": (_i32, [_i32, _i64, ctypes.POINTER(_pointer)]),
    "tk_cuda_free": (None, [_i32, _pointer]),
    "tk_cuda_upload": (_i32, [_i32, _pointer, _pointer, _i64]),
    "tk_cuda_wait": (_i32, [_i32, _pointer]),
    "tk_cuda_describe": (
        _i32,
        [
            _pointer,
            ctypes.POINTER(c_structures.PlanInfo),
            ctypes.POINTER(_i64),
            ctypes.POINTER(_i64),
        ],
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
    "tk_load_get_result": (_i32, [_pointer, ctypes.POINTER(c_structures.LoadResult)]),
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
