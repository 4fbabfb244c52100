# SPDX-License-Identifier: Apache-2.0
"""Choosing ranks: by energy, by a cost per rank, by any objective, and jointly under one budget.

The cost per rank is the C step of Idelbayev and Carreira-Perpinan 2020, "Low-rank Compression of
Neural Nets: Learning the Rank of Each Layer", section 3.2. The joint choice is the greedy solution
of a knapsack whose items of one tensor become less valuable (Fox 1966, "Discrete Optimization via
Marginal Analysis").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from passes.errors import SchemeError

_GRID = 16  # ranks tried at once by search_rank


def tail_energies(singular_values: np.ndarray) -> np.ndarray:
    """Squared error of each rank 0 … R: float64 of R + 1, falling to 0 (Eckart and Young 1936)."""
    squares = np.asarray(singular_values, np.float64) ** 2
    return np.concatenate((np.cumsum(squares[::-1])[::-1], [0.0]))


def rank_by_energy(singular_values: np.ndarray, energy: float) -> int:
    """The least rank that keeps the share ``energy`` (0 to 1) of the squared norm."""
    tails = tail_energies(singular_values)
    return int(np.argmax(tails <= (1.0 - energy) * tails[0]))


def rank_by_cost(singular_values: np.ndarray, cost: float, mu: float = 1.0) -> int:
    """argmin over r of r * ``cost`` + mu/2 * sum of the squares beyond r; the least of equals."""
    tails = tail_energies(singular_values)
    return int(np.argmin(np.arange(tails.size) * cost + 0.5 * mu * tails))


def search_rank(objective: Callable[[int], float], largest: int) -> int:
    """The rank in 0 … ``largest`` of least ``objective``: each one tried up to 32, beyond that a
    grid made finer around its best, which is exact where the objective falls and then rises."""
    known: dict[int, float] = {}

    def value(rank: int) -> float:
        if rank not in known:
            known[rank] = objective(rank)
        return known[rank]

    low, high = 0, largest
    while high - low > 2 * _GRID:
        grid = np.unique(np.linspace(low, high, _GRID + 1).astype(int)).tolist()
        best = min(range(len(grid)), key=lambda index: value(grid[index]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    for rank in range(low, high + 1):
        value(rank)
    return min(known, key=lambda rank: (known[rank], rank))


def allocate_ranks(
    spectra: Mapping[str, np.ndarray], costs: Mapping[str, float], budget: float
) -> dict[str, int]:
    """Ranks under one budget by greatest gain per cost.

    Each further rank of a tensor lowers the squared error by less than the one before, so the
    greedy choice is optimal for equal costs and for every budget that the most valuable ranks use
    up; otherwise it misses the optimum by less than the gain of the first rank that did not fit.

    Args:
        spectra: Name -> singular values, falling, times the root of what an error counts.
        costs: Name -> positive cost of one rank.
        budget: What the costs of all ranks may add up to.

    Returns:
        Name -> rank; singular values of 0 are never taken.

    Raises:
        SchemeError: a cost is not positive or the budget is negative or not a number.
    """
    if not budget >= 0:
        raise SchemeError(f"joint rank: the budget must be at least 0, not {budget}")
    items = []
    for name, values in spectra.items():
        if not costs[name] > 0:
            raise SchemeError(f"joint rank: the cost of {name!r} must be positive")
        gains = np.asarray(values, np.float64) ** 2
        items += [(gain / costs[name], name) for gain in gains[gains > 0].tolist()]
    items.sort(key=lambda item: -item[0])
    ranks, left, closed = dict.fromkeys(spectra, 0), float(budget), set[str]()
    for _, name in items:
        if name in closed:
            continue
        if costs[name] > left * (1 + 1e-12):
            closed.add(name)
            continue
        ranks[name] += 1
        left -= costs[name]
    return ranks
