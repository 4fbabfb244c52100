# SPDX-License-Identifier: Apache-2.0
"""Symbols of a blob that wait with their decoding for the operator behind them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import CodecError, ModelError
from runtime.fresh_memory import FreshMemory
from runtime.promises import Array, Promise, Promises
from runtime.wide import WideReader


@dataclasses.dataclass(frozen=True)
class Blob:
    """An open blob with its name, where to promise what is decoded, and the memory for it."""

    name: str
    reader: WideReader
    promises: Promises
    memory: FreshMemory


@dataclasses.dataclass
class Symbols:
    """The first symbols of a tensor of a blob, as `dtype`, plus `offset`."""

    blob: Blob
    tensor: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0
    _decoded: Promise | None = dataclasses.field(default=None, init=False, repr=False)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def is_shifted(self) -> bool:
        """Whether something is added to the symbols."""
        return self.offset != 0

    def cast(self, dtype: npt.DTypeLike) -> Symbols:
        """Return the same symbols as another type."""
        return dataclasses.replace(self, dtype=np.dtype(dtype))

    def shift(self, offset: int) -> Symbols:
        """Return the symbols with a number added."""
        return dataclasses.replace(self, offset=self.offset + offset)

    def array(self) -> Promise:
        """Promise the elements, the same at each call."""
        if self._decoded is None:
            self._decoded = self._promise(self._array)
        return self._decoded

    def _array(self, threads: int) -> Array:
        symbols = self.blob.reader.decode_tensor(self.tensor, threads=threads)
        values = symbols.reshape(-1)[: self.size].reshape(self.shape)
        values = values.astype(self.dtype, copy=False)
        return values + self.dtype.type(self.offset) if self.offset else values

    def dequantize(
        self, scales: Array, zero_points: Array | None, inner: int, dtype: npt.DTypeLike
    ) -> Promise:
        """Promise (symbol - zero point) * scale, rounded to `dtype` (`WideReader`)."""
        out = self.blob.memory.take((self.size,), dtype)
        decode = functools.partial(
            self.blob.reader.decode_dequantize,
            self.tensor,
            scales,
            zero_points,
            inner=inner,
            num_values=self.size,
            dtype=dtype,
            out=out,
        )
        return self._promise(lambda threads: decode(threads=threads).reshape(self.shape))

    def look_up(self, codebook: Array) -> Promise:
        """Promise the entries of a codebook [entries] that the elements tell."""
        out = self.blob.memory.take((self.size,), codebook.dtype)
        decode = functools.partial(
            self.blob.reader.decode_lookup,
            self.tensor,
            codebook,
            offset=self.offset,
            num_values=self.size,
            out=out,
        )
        return self._promise(lambda threads: decode(threads=threads).reshape(self.shape))

    def _promise(self, make: Callable[[int], Array]) -> Promise:
        def named(threads: int) -> Array:
            try:
                return make(threads)
            except CodecError as error:
                raise ModelError(f"initializer '{self.blob.name}': {error}") from error

        return self.blob.promises.add(named, self.size)
