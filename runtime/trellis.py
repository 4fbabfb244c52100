# SPDX-License-Identifier: Apache-2.0
"""Dependent (trellis coded) quantisation: which symbols to choose, and what they stand for.

Eight states choose between two quantisers, even integers and odd ones with zero, as in ISO/IEC
15938-17 (compression of neural networks), its transitions those of FORMAT.md 2.9. The search is
Viterbi's over the states of each row; H. Schwarz et al., "Hybrid video coding with trellis-coded
quantization", DCC 2019, section 4.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from runtime import c_structures, library
from runtime.errors import CodecError, Status
from runtime.wide import ISAS, Isa


def search_symbols(
    values: npt.NDArray[np.float32],
    *,
    trellis: bool = True,
    rate_weight: float = 0.0,
    most: int = 2**15 - 1,
    importance: npt.NDArray[np.float32] | None = None,
    kept: npt.NDArray[np.bool_] | None = None,
    rounds: int = 2,
    starts: int = 2,
    threads: int = 0,
    isa: Isa = "auto",
) -> tuple[npt.NDArray[np.int16], float]:
    """Choose the symbols of one tensor by squared error and rate.

    Args:
        values: float32 [A, B, C], finite, in units of the step of the integers.
        trellis: choose between two quantisers; else the integers are the symbols themselves.
        rate_weight: squared steps that a bit is worth.
        most: largest magnitude of an integer, 1 to 32767.
        importance: float32 [A, B, C], positive: the weight of each squared error.
        kept: bool [A, B, C]: False where the integer must be zero.
        rounds: how often the rates of symbols are learnt, from the choice before; the first choice
            has none.
        starts: 1: the rounds start from the first choice. 2: also from one with many zeros, whose
            end counts if it has the lower sum of squared error and rate. Small values that lie
            beside large ones, about as wide as a step, stay coded at one bit each without it.
        threads: 0 for one per core.
        isa: The newest instruction set that may be used; the choice is the same by all.

    Returns:
        Symbols, int16 [A, B, C], and about how many bits they take (0 where rounds is 0).

    Raises:
        CodecError: an argument has another shape or range.
    """
    array = np.ascontiguousarray(values, np.float32)
    if array.ndim != 3 or array.size == 0:
        raise CodecError(f"values are {list(array.shape)}, expected [A, B, C] > 0", Status.ARGUMENT)
    for name, given in (("importance", importance), ("kept", kept)):
        if given is not None and given.shape != array.shape:
            raise CodecError(
                f"{name} is {list(given.shape)}, expected {list(array.shape)}", Status.ARGUMENT
            )
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    mask = None if kept is None else np.ascontiguousarray(kept, np.bool_)
    symbols = np.empty(array.shape, np.int16)
    bits = ctypes.c_double()
    wanted = c_structures.Search(
        array.ctypes.data,
        None if weights is None else weights.ctypes.data,
        None if mask is None else mask.ctypes.data,
        *array.shape,
        rate_weight,
        int(trellis),
        most,
        rounds,
        starts,
        threads,
        ISAS[isa],
    )
    status = library.load().tk_search_symbols(
        ctypes.byref(wanted), symbols.ctypes.data, ctypes.byref(bits)
    )
    library.check(status, f"choosing the symbols of {list(array.shape)} values")
    return symbols, bits.value


def trellis_integers(symbols: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """The integers that symbols of dependent quantisation stand for.

    Args:
        symbols: int16 [..., C]; the state starts anew in each row of C.

    Raises:
        CodecError: an integer leaves 16 bits.
    """
    array = np.ascontiguousarray(symbols, np.int16)
    integers = np.empty_like(array)
    if array.size:
        status = library.load().tk_trellis_integers(
            array.ctypes.data, array.size // array.shape[-1], array.shape[-1], integers.ctypes.data
        )
        library.check(status, f"symbols of shape {list(array.shape)}")
    return integers
