# SPDX-License-Identifier: Apache-2.0
"""Weights of 1 to 8 bits packed for products on a GPU that read them as they are.

A weight [outputs, inputs] is fields, unsigned numbers; it stands for `scale * (field - zero)` or
`scale * codebook[field]`. `runtime/csrc/cuda/packed_layout.h` says how fields lie in memory.
"""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import c_structures, library
from runtime.errors import CodecError, Status

BITS = range(1, 9)
"""Widths of a field."""

SPAN = 32
"""Inputs that must share a scale: a group of inputs is a multiple of it, or all."""


def chunk_inputs(bits: int) -> int:
    """Inputs that a warp takes at once, to a multiple of which a weight is filled up."""
    return 256 >> (bits.bit_length() - 1)


def pack_fields(fields: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint32]:
    """Pack fields [outputs, inputs] of so many bits; uint32 [words].

    Raises:
        CodecError: a field does not fit, or the sizes cannot be packed.
    """
    outputs, inputs = fields.shape
    codec = library.load()
    packed = np.zeros(max(0, codec.tk_packed_words(outputs, inputs, bits)), np.uint32)
    held = np.ascontiguousarray(fields, np.uint8)
    status = codec.tk_pack_fields(held.ctypes.data, outputs, inputs, bits, packed.ctypes.data)
    library.check(status, f"packing {outputs} x {inputs} fields of {bits} bits")
    return packed


def unpack_fields(
    packed: npt.NDArray[np.uint32], outputs: int, inputs: int, bits: int
) -> npt.NDArray[np.uint8]:
    """The fields of a packed weight, uint8 [outputs, inputs].

    Raises:
        CodecError: the words are not as many as the sizes ask for.
    """
    codec = library.load()
    if packed.shape != (codec.tk_packed_words(outputs, inputs, bits),) or not packed.size:
        raise CodecError(f"{packed.size} words for {outputs} x {inputs}", Status.ARGUMENT)
    fields = np.empty((outputs, inputs), np.uint8)
    held = np.ascontiguousarray(packed, np.uint32)
    status = codec.tk_unpack_fields(held.ctypes.data, outputs, inputs, bits, fields.ctypes.data)
    library.check(status, f"unpacking {outputs} x {inputs} fields")
    return fields


@dataclasses.dataclass(frozen=True)
class PackedProduct:
    """Sizes of a product with a packed weight.

    Attributes:
        outputs, inputs: of the weight.
        bits: of a field.
        group_inputs: inputs that share a scale; 0 for all.
        zero: the field that stands for zero where there are no zero points and no codebook.
    """

    outputs: int
    inputs: int
    bits: int
    group_inputs: int = 0
    zero: int = 0

    def describe(self, batch: int, **addresses: int) -> c_structures.Packed:
        """The library's description; addresses are x, packed, scales, zeros, codebook, out."""
        return c_structures.Packed(
            batch=batch,
            outputs=self.outputs,
            inputs=self.inputs,
            group_inputs=self.group_inputs or self.inputs,
            bits=self.bits,
            zero=self.zero,
            **addresses,
        )

    def launch(self, batch: int, *, stream: int = 0, **addresses: int) -> None:
        """Multiply on a device, on a stream; returns at once."""
        product = self.describe(batch, **addresses)
        status = library.load().tk_cuda_packed(ctypes.byref(product), stream)
        library.check(status, f"multiplying by {self.outputs} x {self.inputs} packed weights")

    def _unpacking(self, dtype: npt.DTypeLike, **addresses: int) -> c_structures.Unpacking:
        return c_structures.Unpacking(
            outputs=self.outputs,
            inputs=self.inputs,
            group_inputs=self.group_inputs or self.inputs,
            bits=self.bits,
            type=1 if np.dtype(dtype) == np.float32 else 10,
            **addresses,
        )

    def launch_unpack(self, dtype: npt.DTypeLike, *, stream: int = 0, **addresses: int) -> None:
        """Write the weight [outputs, inputs] on a device, on a stream; returns at once.

        Args:
            dtype: float32 or float16, of the weight and of what it is made of.
            stream: a `cudaStream_t`.
            **addresses: packed, scales, zeros or codebook, out.
        """
        unpacking = self._unpacking(dtype, **addresses)
        status = library.load().tk_cuda_unpack_weight(ctypes.byref(unpacking), stream)
        library.check(status, f"unpacking a weight of {self.outputs} x {self.inputs}")

    def unpack(self, **arrays: npt.NDArray[Any]) -> Any:
        """The weight [outputs, inputs], as a device makes it.

        Args:
            **arrays: packed, scales, and zeros or codebook, all of one type but the first.
        """
        held = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
        dtype = held["scales"].dtype
        out = np.empty((self.outputs, self.inputs), dtype)
        addresses = {name: array.ctypes.data for name, array in held.items()}
        unpacking = self._unpacking(dtype, out=out.ctypes.data, **addresses)
        status = library.load().tk_unpack_weight(ctypes.byref(unpacking), 1)
        library.check(status, f"unpacking a weight of {self.outputs} x {self.inputs}")
        return out

    def emulate(self, x: npt.NDArray[np.float16], **arrays: npt.NDArray[Any]) -> Any:
        """Multiply on the host as the device does: float16 [batch, outputs].

        Args:
            x: float16 [batch, inputs].
            **arrays: packed, scales, and zeros or codebook.
        """
        out = np.empty((len(x), self.outputs), np.float16)
        held = {name: np.ascontiguousarray(a) for name, a in {"x": x, **arrays}.items()}
        addresses = {name: array.ctypes.data for name, array in held.items()}
        product = self.describe(len(x), out=out.ctypes.data, **addresses)
        status = library.load().tk_emulate_packed(ctypes.byref(product))
        library.check(status, f"multiplying by {self.outputs} x {self.inputs} packed weights")
        return out
