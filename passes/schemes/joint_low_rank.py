# SPDX-License-Identifier: Apache-2.0
"""Low rank of several weights under one cost (Idelbayev and Carreira-Perpinan 2020, "Low-rank
Compression of Neural Nets", section 3, with a constraint beside its penalty)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext
from passes.schemes.low_rank import LowRank
from passes.schemes.low_rank_factors import Factors, LowRankParameters
from passes.schemes.rank_selection import allocate_ranks
from passes.schemes.weight_values import finite_float32


def factorize_jointly(
    weights: Mapping[str, np.ndarray],
    scheme: LowRank,
    contexts: Mapping[str, FitContext] | None = None,
) -> dict[str, LowRankParameters]:
    """Factors of several weights under one ``budget`` or ``fraction``.

    With ``alpha`` the sum of all costs and errors is least where each weight's own is, so they come
    out as for each weight alone.

    Args:
        weights: name -> float array of at least two dimensions.
        scheme: How to factorise; `flops` count the positions of each weight's context.
        contexts: name -> context; each error counts by its ``mu``. Those left out are plain.

    Raises:
        SchemeError: as `LowRank.fit`, with the weight's name; a given rank or energy, which is of
            each weight alone.
    """
    if scheme.rank is not None or scheme.energy is not None:
        raise SchemeError("low rank: of several weights jointly give budget, fraction or alpha")
    found, spectra, costs, whole = {}, {}, {}, 0.0
    for name, weight in weights.items():
        context = (contexts or {}).get(name, FitContext())
        try:
            finite_float32(weight)
            factors = Factors.of(weight, scheme.reshape, context)
        except SchemeError as error:
            raise SchemeError(f"{name}: {error}") from error
        values = factors.singular_values * np.sqrt(context.mu)
        if scheme.relative and values.size:
            values = values / np.linalg.norm(values)
        spectra[name], costs[name] = values, scheme.cost_per_rank(factors, context)
        whole += weight.size * scheme.positions_of(context)
        found[name] = factors, context
    if scheme.alpha is not None:
        return {
            name: factors.compressed(scheme.rank_of(factors, context), scheme.inner, context)
            for name, (factors, context) in found.items()
        }
    share = 0.0 if scheme.fraction is None else scheme.fraction
    budget = share * whole if scheme.budget is None else scheme.budget
    ranks = allocate_ranks(spectra, costs, budget)
    return {
        name: factors.compressed(ranks[name], scheme.inner, context)
        for name, (factors, context) in found.items()
    }
