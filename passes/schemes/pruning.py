# SPDX-License-Identifier: Apache-2.0
"""Pruning: the weights that matter least become zero, the others go to an inner scheme.

Constraints and penalties are the compression steps of Carreira-Perpiñán and Idelbayev 2018,
"Learning-Compression algorithms for neural net pruning", section 3; thresholds and stages of
sparsity those of Han et al. 2015, "Learning both weights and connections for efficient neural
networks", section 3; N of M those of Zhou et al. 2021, "Learning N:M fine-grained structured sparse
neural networks from scratch", section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Scheme
from passes.schemes.importance import NAMES, Importance
from passes.schemes.joint_pruning import prune_jointly
from passes.schemes.prune_groups import Granularity
from passes.schemes.prune_parameters import PruneParameters

_AMOUNTS = (
    "fraction",
    "sparsity",
    "keep",
    "threshold",
    "l1_radius",
    "l0_penalty",
    "l1_penalty",
    "pattern",
)


@dataclass(frozen=True)
class Prune:
    """How to prune: exactly one amount, what it counts, and the scheme of what is left.

    Attributes:
        fraction: The share of groups that is kept, 0 to 1.
        sparsity: The share of groups that is pruned, 0 to 1; or several, one for each ``stage``.
        keep: The number of groups kept, an l0 constraint.
        threshold: Groups with a score below it are pruned.
        l1_radius: The weight is projected onto the l1 ball of this radius: of single elements, or
            of the Euclidean norms of groups.
        l0_penalty: What each group that is kept costs, against mu/2 times the squared error.
        l1_penalty: What each unit of magnitude costs (of the norm of groups), likewise.
        pattern: (n, m): of each m neighbours along the input channels n are kept.
        stage: Which of several sparsities counts; the last one where it is None.
        granularity: Elements, kernels (one per pair of channels), filters (one per output channel)
            or blocks of ``block`` (height, width).
        importance: ``abs``, ``l1``, ``l2``, ``random`` or a callable (`importance.scores_of`).
            Penalties and ``l1_radius`` go by Euclidean norms, as they are defined.
        inner: The scheme of the pruned weight; it is told the mask. None keeps the values.
    """

    fraction: float | None = None
    sparsity: float | Sequence[float] | None = None
    keep: int | None = None
    threshold: float | None = None
    l1_radius: float | None = None
    l0_penalty: float | None = None
    l1_penalty: float | None = None
    pattern: tuple[int, int] | None = None
    stage: int | None = None
    granularity: Granularity = "element"
    block: tuple[int, int] = (4, 4)
    importance: Importance = "abs"
    inner: Scheme | None = None

    def __post_init__(self) -> None:
        for name in ("sparsity", "pattern", "block"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        given = [name for name in _AMOUNTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = "none" if not given else " and ".join(given)
            raise SchemeError(f"prune: give exactly one of {', '.join(_AMOUNTS)}, not {found}")
        self._check_amount(given[0])
        if self.granularity not in ("element", "kernel", "filter", "block"):
            raise SchemeError(f"prune: no granularity {self.granularity!r}")
        if len(self.block) != 2 or min(self.block) < 1:
            raise SchemeError(f"prune: block must be two sizes of at least 1, not {self.block}")
        if not callable(self.importance) and self.importance not in NAMES:
            raise SchemeError(f"prune: importance is {self.importance!r}, not one of {NAMES}")
        if self.goes_by_norm and self.importance not in ("abs", "l2"):
            raise SchemeError(f"prune: {given[0]} goes by magnitude; importance must be left out")
        if self.pattern is not None and self.granularity != "element":
            raise SchemeError("prune: a pattern is of elements; leave out the granularity")

    def _check_amount(self, name: str) -> None:
        amount = getattr(self, name)
        if self.stage is not None and not isinstance(self.sparsity, tuple):
            raise SchemeError("prune: a stage needs a list of sparsities")
        if name == "pattern":
            if len(amount) != 2 or not 0 <= amount[0] <= amount[1] or amount[1] < 1:
                raise SchemeError(f"prune: pattern must be (n, m) with n at most m, not {amount}")
            return
        amounts = amount if isinstance(amount, tuple) else (amount,)
        most = 1.0 if name in ("fraction", "sparsity") else np.inf
        if not amounts or not all(np.isfinite(a) and 0 <= a <= most for a in amounts):
            span = "0 to 1" if most == 1.0 else "a finite number from 0 on"
            raise SchemeError(f"prune: {name} must be {span}, not {amount}")
        if self.stage is not None and not -len(amounts) <= self.stage < len(amounts):
            raise SchemeError(f"prune: stage {self.stage} of {len(amounts)} sparsities")

    @property
    def shrinks(self) -> bool:
        """Whether what is kept becomes smaller."""
        return self.l1_radius is not None or self.l1_penalty is not None

    @property
    def goes_by_norm(self) -> bool:
        """Whether groups count by their Euclidean norm, whatever the importance."""
        return self.shrinks or self.l0_penalty is not None

    def at_stage(self, stage: int) -> Prune:
        """The same pruning at stage ``stage`` (from 0) of its sparsities."""
        return replace(self, stage=stage)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> PruneParameters:
        """Prunes a float32, float16 or bfloat16 array of any shape.

        Uses the context's mask (what it excludes is pruned and counts as pruned), importance, mu
        and seed. Of equal scores the first in row-major order are kept.

        Raises:
            SchemeError: the array is empty, holds NaN or infinity, has no such groups, or the inner
                scheme does not keep zeros.
        """
        return prune_jointly({"": weight}, self, {"": context or FitContext()})[""]

    def amount_kept(self, count: int) -> int:
        """How many of ``count`` groups fraction, sparsity or keep leave."""
        if self.keep is not None:
            return self.keep
        share = 1.0 if self.fraction is None else self.fraction
        if self.sparsity is not None:
            stages = self.sparsity if isinstance(self.sparsity, tuple) else (self.sparsity,)
            share = 1.0 - float(stages[-1 if self.stage is None else self.stage])
        return int(np.floor(share * count + 0.5))
