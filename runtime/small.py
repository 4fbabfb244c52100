# SPDX-License-Identifier: Apache-2.0
"""The coders of small tensors on NumPy arrays: one stream, one blob (FORMAT.md 3 to 5)."""

from __future__ import annotations

import ctypes
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from runtime import library
from runtime.errors import CodecError, Status

SmallCoder = Literal["auto", "adaptive", "huffman", "fixed"]

MAX_SYMBOLS: Final = 2**24 - 1
_CODERS: Final[dict[str, int]] = {"auto": 0, "adaptive": 2, "huffman": 3, "fixed": 4}
_i32, _i64, _pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


def encode_small(
    symbols: npt.NDArray[Any], coder: SmallCoder = "auto", row_length: int = 0
) -> npt.NDArray[np.uint16]:
    """Encode one stream of symbols.

    Args:
        symbols: int8 or int16, any shape, 1 to 2^24 − 1 elements; read in row-major order.
        coder: "auto" takes the smallest. "adaptive" holds at most 2^20 symbols, "huffman" symbols
            that span at most 4096 values.
        row_length: distance of symbols that lie above each other in the tensor, a hint to the
            adaptive coder; 0 for none.

    Returns:
        The blob, uint16 [w].

    Raises:
        CodecError: the arguments are out of these bounds.
    """
    if coder not in _CODERS:
        raise CodecError(f"coder is {coder!r}, expected one of {sorted(_CODERS)}", Status.ARGUMENT)
    if symbols.dtype not in (np.int8, np.int16):
        found = symbols.dtype
        raise CodecError(f"symbols are {found}, expected int8 or int16", Status.ARGUMENT)
    if not 1 <= symbols.size <= MAX_SYMBOLS:
        raise CodecError(f"{symbols.size} symbols, expected 1 to {MAX_SYMBOLS}", Status.ARGUMENT)
    flat = np.ascontiguousarray(symbols, np.int16).reshape(-1)
    words, num_words = _pointer(), _i64()
    status = library.load().tk_small_encode(
        flat.ctypes.data, flat.size, _CODERS[coder], row_length, words, num_words
    )
    library.check(status, f"encode_small of {flat.size} symbols with coder {coder}")
    try:
        stored = ctypes.cast(words, ctypes.POINTER(ctypes.c_uint16))
        return np.ctypeslib.as_array(stored, (num_words.value,)).copy()
    finally:
        library.load().tk_free(words)


def small_info(words: npt.NDArray[np.uint16]) -> tuple[str, int]:
    """Check a blob's frame and header.

    Returns:
        The coder ("adaptive", "huffman" or "fixed") and the number of symbols.

    Raises:
        CodecError: the blob is not one of these or is damaged.
    """
    blob = _blob(words)
    coder, num_symbols = _i32(), _i64()
    status = library.load().tk_small_info(blob.ctypes.data, blob.size, coder, num_symbols)
    library.check(status, f"blob of {blob.size} words")
    return next(
        name for name, number in _CODERS.items() if number == coder.value
    ), num_symbols.value


def decode_small(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.int16]:
    """Decode a blob of one stream.

    Args:
        words: uint16 [w], an adaptive, Huffman or fixed-length blob.

    Returns:
        The symbols, int16 [n].

    Raises:
        CodecError: the blob is not one of these or is damaged.
    """
    blob = _blob(words)
    _, num_symbols = small_info(blob)
    out = np.empty(num_symbols, np.int16)
    status = library.load().tk_small_decode(blob.ctypes.data, blob.size, out.ctypes.data, out.size)
    library.check(status, f"blob of {blob.size} words, {num_symbols} symbols")
    return out


def _blob(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    if words.dtype != np.uint16 or words.ndim != 1:
        found = f"{words.dtype} of shape {list(words.shape)}"
        raise CodecError(f"a blob is a vector of uint16, found {found}", Status.ARGUMENT)
    return np.ascontiguousarray(words)
