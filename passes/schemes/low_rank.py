# SPDX-License-Identifier: Apache-2.0
"""Low rank: weight = left x right by a truncated singular value decomposition, the rank given, by
energy, by a cost, or under a budget (passes.schemes.rank_selection says where from)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Scheme
from passes.schemes.lossless import Lossless
from passes.schemes.low_rank_factors import Factors, LowRankParameters
from passes.schemes.rank_selection import rank_by_cost, rank_by_energy, search_rank
from passes.schemes.unfolding import Reshape
from passes.schemes.weight_values import finite_float32

_AMOUNTS = ("rank", "energy", "alpha", "budget", "fraction")


@dataclass(frozen=True)
class LowRank:
    """How to factorise: exactly one of ``rank``, ``energy``, ``alpha``, ``budget``, ``fraction``.

    Attributes:
        rank: At least 0; what the weight has less is not made up.
        energy: The share of the squared norm to be kept, 0 to 1.
        alpha: Selects the rank that minimises alpha * cost + mu/2 * squared error.
        budget: What the factors may cost, `storage` or `flops`; of several weights that are fitted
            jointly, all of their factors together.
        fraction: The same as a share of what the weights cost that are not factorised, 0 to 1.
        cost: `storage`: elements of the factors. `flops`: multiply-accumulates, those elements at
            ``positions`` output positions. `bits`, of ``alpha`` only: estimated bits of the
            compressed factors, and then the error too is that of the compressed factors.
        positions: Output positions of the layer for `flops`; those of the context where None, and 1
            where that knows none.
        relative: Whether in a joint fit errors count relative to each weight's squared norm.
        reshape: Which matrix a convolution becomes.
        inner: Compresses each factor.
    """

    rank: int | None = None
    energy: float | None = None
    alpha: float | None = None
    budget: float | None = None
    fraction: float | None = None
    cost: Literal["storage", "flops", "bits"] = "storage"
    positions: int | None = None
    relative: bool = False
    reshape: Reshape = "out_in"
    inner: Scheme = Lossless()

    def __post_init__(self) -> None:
        given = [name for name in _AMOUNTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = "none" if not given else " and ".join(given)
            raise SchemeError(f"low rank: give exactly one of {', '.join(_AMOUNTS)}, not {found}")
        if self.rank is not None and self.rank < 0:
            raise SchemeError(f"low rank: the rank must be at least 0, not {self.rank}")
        for name in ("energy", "fraction"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SchemeError(f"low rank: the {name} must be 0 to 1, not {value}")
        if self.alpha is not None and not (self.alpha >= 0 and np.isfinite(self.alpha)):
            raise SchemeError(f"low rank: alpha must be at least 0, not {self.alpha}")
        if self.budget is not None and not self.budget >= 0:
            raise SchemeError(f"low rank: the budget must be at least 0, not {self.budget}")
        if self.cost not in ("storage", "flops", "bits"):
            raise SchemeError(f"low rank: cost is storage, flops or bits, not {self.cost!r}")
        if self.cost == "bits" and self.alpha is None:
            raise SchemeError(f"low rank: cost bits goes with alpha, not {given[0]}")
        if self.relative and self.budget is None and self.fraction is None:
            raise SchemeError(f"low rank: relative goes with budget or fraction, not {given[0]}")
        if self.reshape not in ("out_in", "spatial"):
            raise SchemeError(f"low rank: reshape is out_in or spatial, not {self.reshape!r}")
        if self.positions is not None and self.positions < 1:
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
        return factors.compressed(self.rank_of(factors, context), self.inner, context)

    def positions_of(self, context: FitContext) -> int:
        """How often each element of a factor multiplies, by ``cost``."""
        if self.cost != "flops":
            return 1
        return self.positions or context.positions or 1

    def cost_per_rank(self, factors: Factors, context: FitContext) -> float:
        """What one more rank costs: elements, or multiply-accumulates."""
        return float(sum(factors.unfolding.matrix_shape) * self.positions_of(context))

    def rank_of(self, factors: Factors, context: FitContext) -> int:
        """The rank of one weight."""
        values, cost = factors.singular_values, self.cost_per_rank(factors, context)
        if self.rank is not None:
            return min(self.rank, values.size)
        if self.energy is not None:
            return rank_by_energy(values, self.energy)
        if self.alpha is None:
            budget = self.budget
            if budget is None:
                share = self.fraction or 0.0
                budget = share * factors.matrix.size * self.positions_of(context)
            return min(int(budget / cost * (1 + 1e-12)), values.size)
        if self.cost == "bits":
            return search_rank(self._objective(factors, self.alpha, context), values.size)
        return rank_by_cost(values, self.alpha * cost, context.mu)

    def _objective(
        self, factors: Factors, alpha: float, context: FitContext
    ) -> Callable[[int], float]:
        def objective(rank: int) -> float:
            fitted = factors.compressed(rank, self.inner, context)
            return alpha * fitted.bits() + 0.5 * context.mu * factors.error(fitted)

        return objective
