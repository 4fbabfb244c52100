# SPDX-License-Identifier: Apache-2.0
"""A sparsity for each weight from its measured sensitivity, for a given share of zeros in all.

The outputs are measured with one weight pruned at a time (Han et al. 2015, "Learning both weights
and connections for efficient neural networks", section 4.3); the noises, taken to add up, are then
least for the total (`passes.schemes.sparsities_for_total`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import InputError
from toolkit.scan_points import ScanPoint, Stages, noise_of

DEFAULT_PRUNING: Stages = (
    {"prune": {"sparsity": [0.3, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95, 0.98]}},
    {"uniform": {"bits": 8}},
)
"""What is measured where nothing else is given."""

DECIMALS = 4
"""Of the sparsities in a recipe, rounded up, so that the total is reached."""


@dataclass(frozen=True)
class PruningLadder:
    """A list of stages at several sparsities: `place` is that of its stage ``prune``, `values` are
    to be measured, 0 first."""

    stages: Stages
    place: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, schemes: Sequence[Stages] | None) -> PruningLadder:
        """From one list of stages, one of which is ``prune`` with a list of sparsities;
        DEFAULT_PRUNING where None. Raises `InputError` for anything else."""
        given = [DEFAULT_PRUNING] if schemes is None else list(schemes)
        if len(given) != 1:
            raise InputError(
                f"schemes: a total sparsity is divided under one list of stages, found {len(given)}"
            )
        for place, stage in enumerate(given[0]):
            options = stage.get("prune") if isinstance(stage, dict) else None
            values = options.get("sparsity") if isinstance(options, dict) else None
            if isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values):
                return cls(given[0], place, tuple(sorted({0.0, *map(float, values)})))
        raise InputError(
            "schemes: a total sparsity needs a stage prune with a list of sparsities to measure"
        )

    def at(self, sparsity: float) -> Stages:
        """The stages at one sparsity, rounded up to DECIMALS."""
        value = math.ceil(round(sparsity * 10**DECIMALS, 6)) / 10**DECIMALS
        options: dict[str, Any] = {**self.stages[self.place]["prune"], "sparsity": value}
        return (*self.stages[: self.place], {"prune": options}, *self.stages[self.place + 1 :])


def divided(
    points: Sequence[tuple[float, ScanPoint]], elements: Mapping[str, int], total: float
) -> dict[str, float]:
    """The sparsity of each weight.

    Args:
        points: sparsity and what was measured at it; what has a problem does not count.
        elements: weight -> number of elements.
        total: the share of all elements to prune, 0 to 1.

    Raises:
        InputError: the total cannot be reached.
    """
    from passes.errors import SchemeError
    from passes.schemes import sparsities_for_total

    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in elements}
    for sparsity, point in points:
        noise = noise_of(point)
        if not point.problem and math.isfinite(noise):
            curves[point.weight].append((sparsity, noise))
    try:
        return sparsities_for_total(curves, elements, total)
    except SchemeError as error:
        raise InputError(str(error)) from error
