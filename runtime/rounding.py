# SPDX-License-Identifier: Apache-2.0
"""Rounding of a layer's features one after the other, where what one choice misses moves the
targets of those behind it, by squared error and by what the wide coder would pay.

E. Frantar et al., "GPTQ", ICLR 2023, section 3; the rate in the choice as in A. Conzelmann,
R. Bamler, arXiv 2505.18758.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime import c_structures, library
from runtime.errors import CodecError, Status

MOST = 2**15 - 1
"""Largest magnitude of a symbol."""


@dataclass(frozen=True, eq=False)
class RateTables:
    """The tables of `SymbolRates` (FORMAT.md 2.6).

    A symbol k is coded as ``v = k >> low_bits``, and ``low_bits`` raw bits. Its class is
    ``y = min(max(row_classes[row] + column_classes[column], 0), classes - 1)``, its context z that
    of the coded symbol before it in its row; it costs ``bits[map[y, z], v + 128] + low_bits``.

    Attributes:
        row_classes: int8 [A * B].
        column_classes: int8 [C].
        t1, t2: uint8 [classes], thresholds of the contexts.
        map: uint8 [classes, contexts], numbers of tables; 1 or 5 contexts.
        bits: float32 [tables, 256]; 13 for a symbol that its table lacks.
    """

    row_classes: npt.NDArray[np.int8]
    column_classes: npt.NDArray[np.int8]
    t1: npt.NDArray[np.uint8]
    t2: npt.NDArray[np.uint8]
    map: npt.NDArray[np.uint8]
    bits: npt.NDArray[np.float32]
    low_bits: int


class SymbolRates:
    """What symbols cost the wide coder: the tables that it would make for one tensor alone.

    Args:
        symbols: int16 [A, B, C], an earlier choice of all of them.
        threads: 0 for one per core.

    Raises:
        CodecError: another type or shape.
    """

    def __init__(self, symbols: npt.NDArray[np.int16], *, threads: int = 0) -> None:
        array = np.ascontiguousarray(symbols)
        if array.dtype != np.int16 or array.ndim != 3 or array.size == 0:
            raise CodecError(
                f"symbols are {array.dtype} {list(array.shape)}, expected int16 [A, B, C] > 0",
                Status.ARGUMENT,
            )
        codec = library.load()
        self.shape: tuple[int, int, int] = array.shape
        self.handle = ctypes.c_void_p()
        status = codec.tk_symbol_rates_learn(
            array.ctypes.data, *array.shape, threads, ctypes.byref(self.handle)
        )
        library.check(status, f"rates of {list(array.shape)} symbols")
        weakref.finalize(self, codec.tk_symbol_rates_close, self.handle)

    @property
    def size(self) -> int:
        """Number of symbols."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def total(self, symbols: npt.NDArray[np.int16]) -> float:
        """Bits of symbols, int16, as many as these rates are for, in their order."""
        array = np.ascontiguousarray(symbols, np.int16)
        if array.size != self.size:
            raise CodecError(f"{array.size} symbols, expected {self.size}", Status.ARGUMENT)
        bits = ctypes.c_double()
        status = library.load().tk_symbol_rates_total(
            self.handle, array.ctypes.data, ctypes.byref(bits)
        )
        library.check(status, "bits of symbols")
        return bits.value

    def tables(self) -> RateTables:
        """The tables, as arrays of their own."""
        codec, info = library.load(), c_structures.RatesInfo()
        library.check(codec.tk_symbol_rates_get_info(self.handle, ctypes.byref(info)), "rates")
        tables = RateTables(
            np.empty(info.rows, np.int8),
            np.empty(info.columns, np.int8),
            np.empty(info.classes, np.uint8),
            np.empty(info.classes, np.uint8),
            np.empty((info.classes, info.contexts), np.uint8),
            np.empty((info.tables, 256), np.float32),
            info.low_bits,
        )
        arrays = (tables.row_classes, tables.column_classes, tables.t1, tables.t2, tables.map)
        model = c_structures.RatesModel(*(a.ctypes.data for a in (*arrays, tables.bits)))
        status = codec.tk_symbol_rates_get_model(self.handle, ctypes.byref(model))
        library.check(status, "the tables of rates")
        return tables


def round_features(
    symbols: npt.NDArray[np.int16],
    targets: npt.NDArray[np.float32],
    coupling: npt.NDArray[np.float32],
    importance: npt.NDArray[np.float32],
    places: npt.NDArray[np.int64],
    *,
    stride: int,
    rates: SymbolRates | None = None,
    rate_weight: float = 0.0,
    most: int = MOST,
    refine: bool = False,
    output_importance: npt.NDArray[np.float32] | None = None,
    kept: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Choose the symbols of some features, each for all outputs, in place.

    Each is the one of least importance * (target - symbol)^2 + rate_weight * bits. Where ``refine``
    is False a choice misses target - symbol, else the symbol before - symbol.

    Args:
        symbols: int16 [n], contiguous: the choice before, all of the tensor's; those of these
            features are replaced.
        targets: float32 [features, outputs], in steps, contiguous; those of later features move.
        coupling: float32 [features, features]: what the target of feature j gains at [i, j], j > i,
            by each unit that the choice for feature i misses.
        importance: float32 [features]: of squared errors.
        places: int64 [features]: index among ``symbols`` of each feature's first output.
        stride: from one output to the next among ``symbols``.
        rates: what symbols cost; None for nothing.
        rate_weight: squared steps that a bit is worth.
        most: largest magnitude of a symbol.
        refine: whether ``symbols`` is a choice that is made better.
        output_importance: float32 [outputs]: of squared errors; None for 1.
        kept: bool [n]: False where the symbol must be zero; None where none must.

    Returns:
        What each choice misses, float32 [features, outputs].

    Raises:
        CodecError: an argument has another type, shape or range.
    """
    features, outputs = targets.shape if targets.ndim == 2 else (0, 0)
    expected: tuple[tuple[str, npt.NDArray[Any] | None, Any, tuple[int, ...]], ...] = (
        ("symbols", symbols, np.int16, (symbols.size,)),
        ("targets", targets, np.float32, (features, outputs)),
        ("coupling", coupling, np.float32, (features, features)),
        ("importance", importance, np.float32, (features,)),
        ("places", places, np.int64, (features,)),
        ("output_importance", output_importance, np.float32, (outputs,)),
        ("kept", kept, np.bool_, (symbols.size,)),
    )
    for name, given, dtype, shape in expected:
        if given is not None and not (
            given.dtype == dtype and given.shape == shape and given.flags.c_contiguous
        ):
            raise CodecError(
                f"{name} is {given.dtype} {list(given.shape)}, expected contiguous "
                f"{np.dtype(dtype)} {list(shape)}",
                Status.ARGUMENT,
            )
    missed = np.empty((features, outputs), np.float32)
    block = c_structures.FeatureBlock(
        targets.ctypes.data,
        coupling.ctypes.data,
        importance.ctypes.data,
        None if output_importance is None else output_importance.ctypes.data,
        places.ctypes.data,
        None if kept is None else kept.ctypes.data,
        features,
        outputs,
        stride,
        rate_weight,
        most,
        int(refine),
    )
    status = library.load().tk_round_features(
        ctypes.byref(block),
        None if rates is None else rates.handle,
        symbols.size,
        symbols.ctypes.data,
        missed.ctypes.data,
    )
    library.check(status, f"rounding {features} features of {outputs} outputs")
    return missed
