# SPDX-License-Identifier: Apache-2.0
"""Dependent (trellis coded) quantisation, chosen by squared error and rate.

H. Schwarz, T. Nguyen, D. Marpe, T. Wiegand, "Hybrid Video Coding with Trellis-Coded Quantization",
DCC 2019, sections 2 to 4, with the eight states of ISO/IEC 15938-17. A weight is an integer times
the scale; the state says whether the integers at hand are the even ones or the odd ones and zero,
and the parity of each symbol chooses the next state. The integers lie as densely as those of a
uniform quantiser of this step, but a symbol need only say which of every second one it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters
from passes.schemes.rate_distortion import error_weights
from passes.schemes.scaling import representable_scale
from passes.schemes.weight_values import finite_float32
from runtime.trellis import search_symbols, trellis_integers

_MIN_ROW = 64  # symbols: in each row the first few are not free yet to take either quantiser
_MAX_ROW = 65536  # FORMAT.md 2.8: as long as a segment of one lane may be
_FOLD = 4096  # rows of what has no divisor that fits
_MIN_ROWS = 32  # lanes of a full block
_MOST = 2**15 - 1


@dataclass(frozen=True, eq=False)
class TrellisParameters(Parameters):
    """A fitted trellis quantiser.

    Attributes:
        symbols: int16, the weight's shape with its axes in ``order``: what is coded, row after row
            of ``view``.
        view: Three dimensions whose last one is a row; their product is at least the number of
            symbols, which zeros follow.
        scale: float32 [], or (shape[axis],) for one per index of ``axis``, positive.
        coded_bits: About what the symbols take when coded.
        dtype: The weight's own type.
        axis: The axis of several scales.
        order: The order of the weight's axes in which symbols are coded; None for its own.
    """

    symbols: np.ndarray
    view: tuple[int, int, int]
    scale: np.ndarray
    coded_bits: float
    dtype: np.dtype
    axis: int | None = None
    order: tuple[int, ...] | None = None

    name: ClassVar[str] = "trellis"

    @property
    def shape(self) -> tuple[int, ...]:
        coded = self.symbols.shape
        return coded if self.order is None else tuple(coded[i] for i in np.argsort(self.order))

    @cached_property
    def integers(self) -> np.ndarray:
        """int8 where they fit, else int16, the weight's shape: what a decoder makes of the
        symbols."""
        values = trellis_integers(_in_rows(self.symbols, self.view))
        fits = int(values.max()) <= 127 and int(values.min()) >= -128
        flat = values.reshape(-1)[: self.symbols.size].reshape(self.symbols.shape)
        own = flat if self.order is None else flat.transpose(np.argsort(self.order))
        whole = np.ascontiguousarray(own, np.int8 if fits else np.int16)
        return whole.reshape(self.shape)  # it has made one dimension of none

    def decode(self) -> np.ndarray:
        """float32 arithmetic, then rounded to the weight's type."""
        spread = self.scale
        if self.axis is not None:
            spread = spread.reshape([-1 if i == self.axis else 1 for i in range(len(self.shape))])
        values: np.ndarray = self.integers.astype(np.float32) * spread
        return values.astype(self.dtype, copy=False)

    def bits(self) -> float:
        """The search's own count, and 32 of each scale."""
        return self.coded_bits + 32 * self.scale.size


@dataclass(frozen=True)
class Trellis:
    """How to quantise: exactly one of ``bits``, ``step`` and ``relative_step``.

    A step 0.56 (fine) to 0.62 (coarse) times that of `Uniform` gives about the same squared error,
    in fewer bits.

    Attributes:
        bits: 2 to 16, those of the integers; the step follows from the largest magnitude.
        step: The scale of the integers.
        relative_step: The scale as a multiple of the root mean square of the tensor.
        rate_weight: Squared steps of error that a bit is worth; 0 takes the least error.
        rounds: How often the costs of symbols are learnt from the choice before, 1 to 8.
    """

    bits: int | None = None
    step: float | None = None
    relative_step: float | None = None
    rate_weight: float = 0.3
    rounds: int = 2

    def __post_init__(self) -> None:
        given = [v for v in (self.bits, self.step, self.relative_step) if v is not None]
        if len(given) != 1:
            raise SchemeError("trellis: give exactly one of bits, step and relative_step")
        if self.bits is not None and not 2 <= self.bits <= 16:
            raise SchemeError(f"trellis: bits must be 2 to 16, not {self.bits}")
        if not (np.isfinite(given[0]) and given[0] > 0):
            raise SchemeError(f"trellis: the step must be positive and finite, not {given[0]}")
        if not (np.isfinite(self.rate_weight) and self.rate_weight >= 0):
            raise SchemeError(
                f"trellis: rate_weight must be finite and not negative, not {self.rate_weight}"
            )
        if not 1 <= self.rounds <= 8:
            raise SchemeError(f"trellis: rounds must be 1 to 8, not {self.rounds}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> TrellisParameters:
        """Quantises a float32, float16 or bfloat16 array of any shape; an all-zero one gets scale
        1.

        Of ``context`` the mask and the importance count, and by moments the mean square of what
        each element is multiplied with. Raises SchemeError for an empty array, for NaN or infinity,
        for a step so small that integers leave 16 bits, and for importance that is not positive.
        """
        values = finite_float32(weight)
        kept = importance = None
        if context is not None and context.mask is not None:
            kept = np.broadcast_to(context.mask, values.shape)
        if context is not None and context.moments is not None:
            importance = _normalised(error_weights(values, context), values.shape)
        elif context is not None and context.importance is not None:
            importance = _normalised(context.importance, values.shape)
        scale = self._scale(values, weight.dtype)
        most = _MOST if self.bits is None else 2 ** (self.bits - 1) - 1
        peak = float(np.abs(values).max()) / float(scale)
        if peak > _MOST + 0.5:
            raise SchemeError(
                f"trellis: the step needs integers up to {peak:.0f}, more than 16 bits"
            )
        view = row_view(values.shape)
        rows = _in_rows(values / scale, view)
        if rows.size > values.size:  # what is padded must not wander from zero
            kept = np.ones(values.shape, np.bool_) if kept is None else kept
        symbols, coded_bits = search_symbols(
            rows,
            rate_weight=self.rate_weight,
            most=most,
            importance=None if importance is None else _in_rows(importance, view, fill=1.0),
            kept=None if kept is None else _in_rows(kept, view),
            rounds=self.rounds,
        )
        flat = symbols.reshape(-1)[: values.size]
        return TrellisParameters(flat.reshape(values.shape), view, scale, coded_bits, weight.dtype)

    def _scale(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """float32 []."""
        if self.step is not None:
            scale = np.float64(self.step)
        elif self.relative_step is not None:
            squares = np.einsum("i,i->", values.reshape(-1), values.reshape(-1), dtype=np.float64)
            scale = self.relative_step * np.sqrt(squares / values.size)
        else:
            scale = np.float64(np.abs(values).max()) / (2 ** ((self.bits or 2) - 1) - 1)
        return representable_scale(np.asarray(scale), dtype)


def row_view(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The coder's three dimensions for a trellis tensor of this shape, in its own order.

    A row is as many of the last axes as have 64 elements or more. It is divided where there would
    be fewer than 32 rows, or more than 65536 elements in one; without a divisor that fits, the view
    has rows of 4096 and is larger than the shape.
    """
    size = prod(shape)
    axes = next((n for n in range(1, len(shape)) if prod(shape[-n:]) >= _MIN_ROW), len(shape))
    length = prod(shape[len(shape) - axes :])
    rows = size // max(length, 1)
    wanted = max(-(-length // _MAX_ROW), -(-_MIN_ROWS // rows))
    parts = range(wanted, length // _MIN_ROW + 1)
    number = next((n for n in parts if length % n == 0), 1)
    if length // number > _MAX_ROW:
        return (1, -(-size // _FOLD), _FOLD)
    if number > 1:
        return (rows, number, length // number)
    leading = shape[: len(shape) - axes]
    return (prod(leading[:1]), prod(leading[1:]), length)


def _in_rows(
    array: np.ndarray, view: tuple[int, int, int], fill: float | bool = False
) -> np.ndarray:
    """``array`` as an array of shape ``view``, ``fill`` appended where it has more elements."""
    flat = np.ascontiguousarray(array).reshape(-1)
    missing = prod(view) - flat.size
    if missing:
        flat = np.concatenate((flat, np.full(missing, fill, flat.dtype)))
    return flat.reshape(view)


def _normalised(importance: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Importance of each element, float32 of mean 1, so that ``rate_weight`` keeps its meaning."""
    values = np.asarray(importance, np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise SchemeError("trellis: importance must be positive and finite")
    spread: np.ndarray = np.broadcast_to(values, shape)
    normalised: np.ndarray = (spread / spread.mean()).astype(np.float32)
    return normalised
