# SPDX-License-Identifier: Apache-2.0
"""Low rank: weight = left x right by a truncated singular value decomposition (Eckart and Young
1936), the factors compressed by a scheme of their own.

An importance that is a product of one number per row and one per column is honoured exactly, any
other by its means over rows and columns (Hsu et al. 2022, "Language model compression with weighted
low-rank factorization", section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.lossless import Lossless
from passes.schemes.rank_selection import rank_by_cost, rank_by_energy, search_rank
from passes.schemes.unfolding import Reshape, Unfolding
from passes.schemes.weight_values import finite_float32


@dataclass(frozen=True, eq=False)
class LowRankParameters(Parameters):
    """Fitted factors.

    Attributes:
        left: Of shape ``unfolding.left_shape(rank)``; None at rank 0, which decodes to zeros.
        right: Of shape ``unfolding.right_shape(rank)``.
        unfolding: From the product of both as matrices to the weight.
        dtype: The weight's own type, which the factors have too.
    """

    left: Parameters | None
    right: Parameters | None
    unfolding: Unfolding
    dtype: np.dtype

    name: ClassVar[str] = "low_rank"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.unfolding.shape

    @property
    def rank(self) -> int:
        """Columns of the left factor."""
        return 0 if self.left is None else self.left.shape[1]

    def decode(self) -> np.ndarray:
        """The product in float32, rounded to the weight's type. ONNX Runtime adds up in another
        order: it agrees within float32 round-off, about 1e-6 of the largest weight."""
        if self.left is None or self.right is None:
            return np.zeros(self.shape, self.dtype)
        left = self.unfolding.left_matrix(self.left.decode()).astype(np.float32, copy=False)
        right = self.unfolding.right_matrix(self.right.decode()).astype(np.float32, copy=False)
        return self.unfolding.weight((left @ right).astype(self.dtype, copy=False))

    @property
    def is_exact(self) -> bool:
        return not self.children()

    def bits(self) -> float:
        """Those of the factors."""
        return sum(child.bits() for child in self.children())

    def children(self) -> tuple[Parameters, ...]:
        return () if self.left is None or self.right is None else (self.left, self.right)


@dataclass(frozen=True)
class LowRank:
    """How to factorise: exactly one of ``rank``, ``energy`` and ``alpha``.

    Attributes:
        rank: At least 0; what the weight has less is not made up.
        energy: The share of the squared norm to be kept, 0 to 1.
        alpha: Selects the rank that minimises alpha * cost + mu/2 * squared error.
        cost: Of ``alpha``. `storage`: elements of the factors. `flops`: multiply-accumulates, those
            elements at ``positions`` output positions. `bits`: estimated bits of the compressed
            factors, and then the error too is that of the compressed factors.
        positions: Output positions of the layer for `flops`; 1 for a matrix and one row.
        reshape: Which matrix a convolution becomes.
        inner: Compresses each factor.
    """

    rank: int | None = None
    energy: float | None = None
    alpha: float | None = None
    cost: Literal["storage", "flops", "bits"] = "storage"
    positions: int = 1
    reshape: Reshape = "out_in"
    inner: Scheme = Lossless()

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.rank, self.energy, self.alpha)) != 1:
            raise SchemeError("low rank: give exactly one of rank, energy and alpha")
        if self.rank is not None and self.rank < 0:
            raise SchemeError(f"low rank: the rank must be at least 0, not {self.rank}")
        if self.energy is not None and not 0 <= self.energy <= 1:
            raise SchemeError(f"low rank: the energy must be 0 to 1, not {self.energy}")
        if self.alpha is not None and not (self.alpha >= 0 and np.isfinite(self.alpha)):
            raise SchemeError(f"low rank: alpha must be at least 0, not {self.alpha}")
        if self.cost not in ("storage", "flops", "bits"):
            raise SchemeError(f"low rank: cost is storage, flops or bits, not {self.cost!r}")
        if self.reshape not in ("out_in", "spatial"):
            raise SchemeError(f"low rank: reshape is out_in or spatial, not {self.reshape!r}")
        if self.positions < 1:
            raise SchemeError(f"low rank: positions must be at least 1, not {self.positions}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> LowRankParameters:
        """Factorises a float array of at least two dimensions.

        A mask must leave out whole rows and columns of the matrix: products keep no single element
        at zero. Raises SchemeError for another mask, fewer dimensions, an empty array, NaN or
        infinity, and what ``inner`` raises.
        """
        context = context or FitContext()
        finite_float32(weight)
        factors = Factors.of(weight, self.reshape, context)
        return factors.compressed(self._rank(factors, context), self.inner, context)

    def _rank(self, factors: Factors, context: FitContext) -> int:
        values = factors.singular_values
        if self.rank is not None:
            return min(self.rank, values.size)
        if self.energy is not None:
            return rank_by_energy(values, self.energy)
        alpha = self.alpha or 0.0
        if self.cost == "bits":
            return search_rank(self._objective(factors, alpha, context), values.size)
        cost = alpha * sum(factors.unfolding.matrix_shape)
        return rank_by_cost(
            values, cost * (self.positions if self.cost == "flops" else 1), context.mu
        )

    def _objective(
        self, factors: Factors, alpha: float, context: FitContext
    ) -> Callable[[int], float]:
        def objective(rank: int) -> float:
            fitted = factors.compressed(rank, self.inner, context)
            return alpha * fitted.bits() + 0.5 * context.mu * factors.error(fitted)

        return objective


@dataclass(frozen=True, eq=False)
class Factors:
    """The singular value decomposition of a weight, from which factors of any rank follow.

    Attributes:
        matrix: float64 [rows, columns].
        left, singular_values, right: Of the matrix times ``rows`` and ``columns``; only values that
            stand out of float64 round-off, which is none for a weight of zeros.
        rows, columns: float64 [rows, 1] and [1, columns], roots of the importance, 0 where pruned.
        unfolding: From matrix to weight.
        dtype: The weight's.
    """

    matrix: np.ndarray
    left: np.ndarray
    singular_values: np.ndarray
    right: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    unfolding: Unfolding
    dtype: np.dtype

    @classmethod
    def of(cls, weight: np.ndarray, reshape: Reshape, context: FitContext) -> Factors:
        """Decomposes a finite ``weight``."""
        unfolding = Unfolding.of(weight.shape, reshape, context.channel_axis)
        matrix = unfolding.matrix(weight.astype(np.float64))
        rows, columns = np.ones((matrix.shape[0], 1)), np.ones((1, matrix.shape[1]))
        if context.importance is not None:
            whole = np.broadcast_to(context.importance, weight.shape)
            importance = unfolding.matrix(whole.astype(np.float64))
            rows = np.sqrt(importance.mean(axis=1, keepdims=True))
            columns = np.sqrt(importance.mean(axis=0, keepdims=True) / importance.mean())
        if context.mask is not None:
            kept_rows, kept_columns = kept_sides(unfolding.matrix(context.mask), "low rank")
            rows, columns = rows * kept_rows[:, None], columns * kept_columns[None, :]
        left, values, right = np.linalg.svd(rows * matrix * columns, full_matrices=False)
        noise = values[:1] * np.finfo(np.float64).eps * max(matrix.shape)
        size = int(np.count_nonzero(values > noise))
        return cls(
            matrix, left[:, :size], values[:size], right[:size], rows, columns, unfolding,
            weight.dtype,
        )  # fmt: skip

    def compressed(self, rank: int, inner: Scheme, context: FitContext) -> LowRankParameters:
        """Factors of a rank under ``inner``.

        The root of each singular value goes to either side, so that equal relative errors of the
        two factors cause equal errors of the product. The right factor is then fitted again, by
        least squares, to what the left one has become.
        """
        if rank == 0:
            return LowRankParameters(None, None, self.unfolding, self.dtype)
        root = np.sqrt(self.singular_values[:rank])
        kept_rows, kept_columns = self.rows > 0, self.columns > 0
        inverse = np.where(kept_rows, 1.0 / np.where(kept_rows, self.rows, 1.0), 0.0)
        left = self.unfolding.left_layer((inverse * self.left[:, :rank] * root).astype(self.dtype))
        row_mask = np.broadcast_to(kept_rows, (len(kept_rows), rank))
        own = _own_context(context, 0)
        mask = None if context.mask is None else self.unfolding.left_layer(row_mask)
        left_fit = inner.fit(left, replace(own, mask=mask))
        decoded = self.unfolding.left_matrix(left_fit.decode()).astype(np.float64)
        solved = np.linalg.lstsq(self.rows * decoded, self.rows * self.matrix, rcond=None)[0]
        right = self.unfolding.right_layer((solved * kept_columns).astype(self.dtype))
        column_mask = np.broadcast_to(kept_columns, solved.shape)
        mask = None if context.mask is None else self.unfolding.right_layer(column_mask)
        right_fit = inner.fit(right, replace(own, mask=mask))
        return LowRankParameters(left_fit, right_fit, self.unfolding, self.dtype)

    def error(self, fitted: LowRankParameters) -> float:
        """The squared error of ``fitted``, weighted by the importance."""
        decoded = self.unfolding.matrix(fitted.decode().astype(np.float64))
        return float(np.sum((self.rows * (self.matrix - decoded) * self.columns) ** 2))


def kept_sides(mask: np.ndarray, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """Which rows and columns a bool matrix keeps; SchemeError if it leaves out anything else."""
    rows, columns = np.asarray(mask.any(axis=1)), np.asarray(mask.any(axis=0))
    if not np.array_equal(mask, rows[:, None] & columns[None, :]):
        raise SchemeError(f"{scheme}: a mask must leave out whole rows and columns of the matrix")
    return rows, columns


def _own_context(context: FitContext, channel_axis: int) -> FitContext:
    """What a factor may know of the weight's context."""
    return FitContext(channel_axis=channel_axis, mu=context.mu, seed=context.seed)
