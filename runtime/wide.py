# SPDX-License-Identifier: Apache-2.0
"""The wide codec on NumPy arrays (FORMAT.md 2)."""

from __future__ import annotations

import ctypes
import dataclasses
import math
import weakref
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from runtime import c_structures, library
from runtime.errors import CodecError, Status
from runtime.fresh_memory import aligned_empty

Isa = Literal["auto", "portable", "avx2", "avx512"]
Contexts = Literal["off", "auto", "on"]

ISAS: dict[Isa, int] = {"auto": 0, "portable": 1, "avx2": 2, "avx512": 3}
_CONTEXTS = {"off": 0, "auto": 1, "on": 2}
_FLAGS_AT, _FLAG_TRELLIS = 8, 4
_ONNX_FLOATS = {np.dtype(np.float32): 1, np.dtype(np.float16): 10}


def best_isa() -> Isa:
    """Return the instruction set that "auto" stands for on this processor."""
    best = int(library.load().tk_best_isa())
    return next(name for name, number in ISAS.items() if number == best)


def encode_wide(
    tensors: Sequence[npt.NDArray[Any]],
    *,
    trellis: Sequence[bool] = (),
    contexts: Contexts = "auto",
    classes: bool = True,
    steps: int = 0,
    threads: int = 0,
) -> npt.NDArray[np.uint16]:
    """Encode tensors of symbols into one blob.

    Args:
        tensors: arrays [A, B, C] of one type, int8 or int16, none empty.
        trellis: which tensors hold symbols of dependent quantisation (FORMAT.md 2.9), which decode
            to the integers that they stand for; none where empty.
        contexts: the previous symbol of the lane chooses the table: never, where it pays, always.
        classes: choose tables by classes of rows and columns where it pays; else one per tensor.
        steps: wanted symbols per lane; 0 for the default.
        threads: 0 for one per core.

    Returns:
        The blob, uint16 [n].

    Raises:
        CodecError: an array has another type or shape, the integer of a trellis symbol does not fit
            the array's type, or the tensors do not fit one blob.
    """
    if contexts not in _CONTEXTS:
        raise CodecError(f"contexts is {contexts!r}, expected off, auto or on", Status.ARGUMENT)
    if not tensors:
        raise CodecError("encode_wide: no tensors", Status.ARGUMENT)
    arrays = [np.ascontiguousarray(tensor) for tensor in tensors]
    dtype = arrays[0].dtype
    for index, array in enumerate(arrays):
        if array.dtype != dtype or dtype not in (np.int8, np.int16):
            raise CodecError(
                f"tensor {index} is {array.dtype}, expected int8 or int16, the same for all",
                Status.ARGUMENT,
            )
        if tensors[index].ndim != 3 or array.size == 0:
            raise CodecError(
                f"tensor {index} has shape {list(tensors[index].shape)}, expected [A, B, C] > 0",
                Status.ARGUMENT,
            )
    if trellis and len(trellis) != len(arrays):
        raise CodecError(
            f"trellis says of {len(trellis)} tensors, expected {len(arrays)}", Status.ARGUMENT
        )
    described = (c_structures.TensorToEncode * len(arrays))(
        *(
            c_structures.TensorToEncode(array.ctypes.data, *array.shape, int(flag), 0)
            for array, flag in zip(arrays, trellis or (False,) * len(arrays), strict=True)
        )
    )
    options = c_structures.WideOptions(
        int(dtype == np.int16), _CONTEXTS[contexts], int(classes), steps, threads, 0
    )
    codec = library.load()
    words, num_words = ctypes.c_void_p(), ctypes.c_int64()
    status = codec.tk_wide_encode(
        described, len(arrays), ctypes.byref(options), ctypes.byref(words), ctypes.byref(num_words)
    )
    library.check(status, f"encoding {len(arrays)} tensors")
    # The array is the library's memory, which goes back when nothing refers to it any more.
    memory = (ctypes.c_uint16 * num_words.value).from_address(words.value or 0)
    weakref.finalize(memory, codec.tk_free, words).atexit = False
    return np.ctypeslib.as_array(memory)


def short_rows(view: tuple[int, int, int], most: int) -> tuple[int, int, int]:
    """A view of the same symbols in rows of at most `most`, as a lane has a row at least; the view
    itself where they cannot be divided so, or `most` is 0. Trellis symbols mean other integers in
    other rows, so theirs are left."""
    a, b, c = view
    if not most or c <= most:
        return view
    length = next((n for n in range(most, most // 8, -1) if c % n == 0), c)
    return (a * b, c // length, length) if length < c else view


def has_trellis(words: npt.NDArray[np.uint16]) -> bool:
    """Whether a wide blob, uint16 [n], says that it has trellis sets (FORMAT.md 2.2)."""
    return words.size > _FLAGS_AT and bool(words[_FLAGS_AT] & _FLAG_TRELLIS)


@dataclasses.dataclass(frozen=True)
class SegmentInfo:
    """What a blob holds; the counts of FORMAT.md 2.2. `side_words` are 16-bit words."""

    num_tensors: int
    num_lanes: int
    num_blocks: int
    num_steps: int
    num_code_words: int
    num_exceptions: int
    side_words: int
    num_sets: int
    dtype: np.dtype[Any]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of a blob: its shape (A, B, C), its lanes and the tables that it uses."""

    shape: tuple[int, int, int]
    rows_per_lane: int
    first_lane: int
    num_lanes: int
    code_words: int
    table_set: int
    low_bits: int
    contexts: int

    @property
    def steps(self) -> int:
        """Symbols of a full lane."""
        return min(self.rows_per_lane, self.shape[0] * self.shape[1]) * self.shape[2]


class WideReader:
    """An open blob: checked whole when it is made, then decoded in parts or at once.

    Raises:
        CodecError: the words are not a sound wide blob; `code` tells why.
    """

    def __init__(self, words: npt.NDArray[np.uint16]) -> None:
        if not isinstance(words, np.ndarray) or words.dtype != np.uint16 or words.ndim != 1:
            raise CodecError("a blob must be a one-dimensional uint16 array", Status.ARGUMENT)
        self._words = np.ascontiguousarray(words)  # kept: the reader points into it
        self._codec = library.load()
        self._handle = ctypes.c_void_p()
        status = self._codec.tk_wide_open(
            self._words.ctypes.data, self._words.size, ctypes.byref(self._handle)
        )
        library.check(status, f"the blob of {self._words.size} words is refused")
        weakref.finalize(self, _close, self._codec, self._handle, self._words)
        info = c_structures.WideInfo()
        library.check(self._codec.tk_wide_get_info(self._handle, ctypes.byref(info)), "info")
        self.info = SegmentInfo(
            **{f.name: getattr(info, f.name) for f in dataclasses.fields(SegmentInfo)[:-1]},
            dtype=np.dtype(np.int16 if info.wide else np.int8),
        )
        self.tensors = tuple(self._describe(index) for index in range(info.num_tensors))
        self._places = {
            (tensor.first_lane, tensor.num_lanes, tensor.steps): index
            for index, tensor in enumerate(self.tensors)
        }

    @property
    def handle(self) -> ctypes.c_void_p:
        """The library's `tk_wide_reader`, which lives as long as this object."""
        return self._handle

    def find(self, lane: int, lanes: int, steps: int) -> int | None:
        """Return which tensor takes a place among the symbols of the blob, or None.

        Args:
            lane: the tensor's first lane.
            lanes: how many lanes it has.
            steps: symbols of a full lane of it.
        """
        return self._places.get((lane, lanes, steps))

    def decode_all(self, *, threads: int = 0, isa: Isa = "auto") -> npt.NDArray[Any]:
        """Decode every symbol: int8 or int16 [num_lanes, num_steps], zero past a lane's end."""
        out = aligned_empty((self.info.num_lanes, self.info.num_steps), self.info.dtype)
        status = self._codec.tk_wide_decode_all(
            self._handle, out.ctypes.data, out.nbytes, threads, ISAS[isa]
        )
        library.check(status, "decoding the blob")
        return out

    def decode_tensors(self, *, threads: int = 0, isa: Isa = "auto") -> list[npt.NDArray[Any]]:
        """Decode all tensors: int8 or int16 [A, B, C] each, in one piece of memory."""
        sizes = [math.prod(tensor.shape) for tensor in self.tensors]
        out = aligned_empty((sum(sizes),), self.info.dtype)
        status = self._codec.tk_wide_decode_tensors(
            self._handle, out.ctypes.data, out.nbytes, threads, ISAS[isa]
        )
        library.check(status, "decoding the blob")
        parts = np.split(out, np.cumsum(sizes)[:-1])
        return [part.reshape(t.shape) for part, t in zip(parts, self.tensors, strict=True)]

    def decode_tensor(self, index: int, *, threads: int = 0, isa: Isa = "auto") -> npt.NDArray[Any]:
        """Decode one tensor: int8 or int16 [A, B, C]."""
        out = aligned_empty(self._tensor(index).shape, self.info.dtype)
        status = self._codec.tk_wide_decode_tensor(
            self._handle, index, out.ctypes.data, out.nbytes, threads, ISAS[isa]
        )
        library.check(status, f"decoding tensor {index}")
        return out

    def decode_dequantize(
        self,
        index: int,
        scales: npt.NDArray[np.float32],
        zero_points: npt.NDArray[np.int32] | None = None,
        *,
        inner: int = 1,
        num_values: int | None = None,
        dtype: npt.DTypeLike = np.float32,
        out: npt.NDArray[Any] | None = None,
        threads: int = 0,
        isa: Isa = "auto",
    ) -> npt.NDArray[Any]:
        """Decode one tensor and dequantise it: (symbol - zero point) * scale.

        Args:
            index: which tensor.
            scales: float32 [S]; the flat index i has scale (i // inner) % S.
            zero_points: int32 [S], or None for zeros.
            inner: consecutive values that share a scale.
            num_values: how many values to write; None for all of the tensor's A*B*C.
            dtype: float32 or float16, to which the float32 result is rounded.
            out: where to write: dtype [num_values], contiguous; None for a new array.
            threads: 0 for one per core.
            isa: instruction set.

        Returns:
            dtype [num_values].
        """
        tensor = self._tensor(index)
        wanted = np.dtype(dtype)
        size = int(np.prod(tensor.shape)) if num_values is None else num_values
        scale = np.ascontiguousarray(scales, np.float32).reshape(-1)
        zero = None
        if zero_points is not None:
            zero = np.ascontiguousarray(zero_points, np.int32).reshape(-1)
        if wanted not in _ONNX_FLOATS or scale.size == 0 or inner < 1 or size < 0:
            raise CodecError(f"decoding tensor {index}: bad dtype, scales, inner or num_values",
                             Status.ARGUMENT)  # fmt: skip
        if zero is not None and zero.size != scale.size:
            raise CodecError(
                f"decoding tensor {index}: {zero.size} zero points for {scale.size} scales",
                Status.ARGUMENT,
            )
        how = c_structures.Dequantize(
            scale.ctypes.data,
            None if zero is None else zero.ctypes.data,
            scale.size,
            inner,
            size,
            _ONNX_FLOATS[wanted],
        )
        if out is None:
            out = np.empty(size, wanted)
        _check_out(out, size, wanted)
        status = self._codec.tk_wide_decode_dequantize(
            self._handle, index, ctypes.byref(how), out.ctypes.data, out.nbytes, threads, ISAS[isa]
        )
        library.check(status, f"decoding tensor {index}")
        return out

    def decode_lookup(
        self,
        index: int,
        codebook: npt.NDArray[Any],
        *,
        offset: int = 0,
        num_values: int | None = None,
        out: npt.NDArray[Any] | None = None,
        threads: int = 0,
        isa: Isa = "auto",
    ) -> npt.NDArray[Any]:
        """Decode one tensor and look its symbols up: codebook[symbol + offset].

        Args:
            index: which tensor.
            codebook: [entries], elements of 2 or 4 bytes.
            offset: added to each symbol.
            num_values: how many values to write; None for all of the tensor's A*B*C.
            out: where to write: the codebook's type [num_values], contiguous; None for a new array.
            threads: 0 for one per core.
            isa: instruction set.

        Returns:
            The codebook's type [num_values].

        Raises:
            CodecError: the blob is not sound, or a symbol is outside the codebook.
        """
        tensor = self._tensor(index)
        entries = np.ascontiguousarray(codebook)
        size = int(np.prod(tensor.shape)) if num_values is None else num_values
        if out is None:
            out = np.empty(size, entries.dtype)
        _check_out(out, size, entries.dtype)
        status = self._codec.tk_wide_decode_lookup(
            self._handle, index, entries.ctypes.data, entries.size, offset, entries.itemsize,
            out.size, out.ctypes.data, out.nbytes, threads, ISAS[isa],
        )  # fmt: skip
        library.check(status, f"decoding tensor {index}")
        return out

    def _tensor(self, index: int) -> TensorInfo:
        if not 0 <= index < len(self.tensors):
            raise CodecError(f"tensor {index} of {len(self.tensors)}", Status.ARGUMENT)
        return self.tensors[index]

    def _describe(self, index: int) -> TensorInfo:
        info = c_structures.WideTensorInfo()
        status = self._codec.tk_wide_get_tensor(self._handle, index, ctypes.byref(info))
        library.check(status, f"tensor {index}")
        return TensorInfo(
            (info.a, info.b, info.c),
            info.rows_per_lane,
            info.first_lane,
            info.num_lanes,
            info.code_words,
            info.set,
            info.low_bits,
            info.contexts,
        )


def _check_out(out: npt.NDArray[Any], size: int, dtype: np.dtype[Any]) -> None:
    if out.shape != (size,) or out.dtype != dtype or not out.flags.c_contiguous:
        raise CodecError(
            f"out is {out.dtype} {list(out.shape)}, expected contiguous {dtype} [{size}]",
            Status.ARGUMENT,
        )


def _close(codec: Any, handle: ctypes.c_void_p, _words: npt.NDArray[np.uint16]) -> None:
    codec.tk_wide_close(handle)
