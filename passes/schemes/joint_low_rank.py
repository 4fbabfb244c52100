# SPDX-License-Identifier: Apache-2.0
"""Low rank of several weights under one budget (Idelbayev and Carreira-Perpinan 2020, "Low-rank
Compression of Neural Nets", with a constraint in place of the penalty)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Scheme
from passes.schemes.lossless import Lossless
from passes.schemes.low_rank import Factors, LowRankParameters
from passes.schemes.rank_selection import allocate_ranks
from passes.schemes.unfolding import Reshape
from passes.schemes.weight_values import finite_float32


@dataclass(frozen=True)
class JointLowRank:
    """One budget for several weights.

    Attributes:
        budget: Elements of all factors, or multiply-accumulates where ``positions`` are given.
        relative: Whether the error of each weight counts relative to its squared norm.
        reshape: Which matrix a convolution becomes.
        inner: Compresses each factor.
    """

    budget: float
    relative: bool = False
    reshape: Reshape = "out_in"
    inner: Scheme = Lossless()

    def __post_init__(self) -> None:
        if not self.budget >= 0:
            raise SchemeError(f"joint rank: the budget must be at least 0, not {self.budget}")

    def fit(
        self,
        weights: Mapping[str, np.ndarray],
        contexts: Mapping[str, FitContext] | None = None,
        positions: Mapping[str, int] | None = None,
    ) -> dict[str, LowRankParameters]:
        """Factors of each weight.

        Args:
            weights: Name -> float array of at least two dimensions.
            contexts: Name -> context; each error counts by its ``mu``.
            positions: Name -> output positions of the layer, for a budget of
                multiply-accumulates; 1 for each where None.

        Raises:
            SchemeError: as `LowRank.fit`, with the weight's name.
        """
        found, spectra, costs = {}, {}, {}
        for name, weight in weights.items():
            context = (contexts or {}).get(name, FitContext())
            try:
                finite_float32(weight)
                factors = Factors.of(weight, self.reshape, context)
            except SchemeError as error:
                raise SchemeError(f"{name}: {error}") from error
            values = factors.singular_values * np.sqrt(context.mu)
            if self.relative and values.size:
                values = values / np.linalg.norm(values)
            spectra[name] = values
            costs[name] = float(sum(factors.unfolding.matrix_shape))
            costs[name] *= (positions or {}).get(name, 1)
            found[name] = factors, context
        ranks = allocate_ranks(spectra, costs, self.budget)
        return {
            name: factors.compressed(ranks[name], self.inner, context)
            for name, (factors, context) in found.items()
        }
