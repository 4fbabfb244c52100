# SPDX-License-Identifier: Apache-2.0
"""What pruning has fitted: which weights are zero, and the inner scheme's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import Parameters
from passes.schemes.entropy import entropy_bits
from passes.schemes.lossless import Lossless, LosslessParameters


@dataclass(frozen=True, eq=False)
class PruneParameters(Parameters):
    """A pruned weight.

    Attributes:
        inner: Parameters of the pruned weight under the inner scheme, of the weight's shape.
        mask: bool, the weight's shape; where it is False the weight is exactly 0.
    """

    inner: Parameters
    mask: np.ndarray

    name: ClassVar[str] = "prune"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """The weight's own type."""
        return self.inner.dtype

    @property
    def density(self) -> float:
        """The share of elements that are not pruned."""
        return float(np.count_nonzero(self.mask)) / max(self.mask.size, 1)

    def decode(self) -> np.ndarray:
        """What the inner scheme decodes to; it keeps the zeros."""
        return self.inner.decode()

    def bits(self) -> float:
        """The inner scheme's bits; of floats kept as they are, places and survivors if fewer."""
        if not isinstance(self.inner, LosslessParameters) or not self.mask.any():
            return self.inner.bits()
        return min(self.inner.bits(), self.survivors().bits() + entropy_bits(self.mask))

    def survivors(self) -> LosslessParameters:
        """The elements that are not pruned, a vector in row-major order, kept as they are."""
        fitted = Lossless().fit(self.decode()[self.mask])
        if not isinstance(fitted, LosslessParameters):
            raise SchemeError(f"prune: no floats but {fitted.dtype}")
        return fitted

    def children(self) -> tuple[Parameters, ...]:
        return (self.inner,)
