# SPDX-License-Identifier: Apache-2.0
"""What all schemes have in common: fit(weight, context) -> parameters, which decode and count bits.

A scheme is a frozen dataclass of plain values. Composition is nesting: an outer scheme fits its
inner one to coefficients, factors or a residual, and the parameters form the same tree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from passes.schemes.moments import Moments, RowUse


class Parameters(ABC):
    """What a scheme has fitted.

    Attributes:
        name: The scheme's name, for reports.
        dtype: The weight's own type.
    """

    name: ClassVar[str]
    dtype: np.dtype

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The weight's dimensions."""

    @abstractmethod
    def decode(self) -> np.ndarray:
        """The weight that these parameters stand for, in its own shape and type."""

    @abstractmethod
    def bits(self) -> float:
        """Estimated bits when coded, side information included."""

    def children(self) -> tuple[Parameters, ...]:
        """Parameters of the inner schemes: factors, coefficients, parts of a sum."""
        return ()

    @property
    def is_exact(self) -> bool:
        """Whether every way to run the graph makes the bits of ``decode``; otherwise, where it adds
        up products, they agree within round-off of float32 and of the weight's type."""
        return all(child.is_exact for child in self.children())


@dataclass(frozen=True, eq=False)
class FitContext:
    """What a scheme may know beside the weight.

    Attributes:
        channel_axis: The axis of output channels.
        mask: bool, the weight's shape; where it is False the result decodes to exactly 0.
        importance: Positive, broadcastable to the weight: how much each squared error counts.
        mu: The weight of the quadratic penalty in LC's compression step, penalty + mu/2 times the
            squared error.
        seed: Of everything random.
        previous: Parameters of an earlier fit to a similar weight, to start from.
        positions: Output positions of the layer for one sample: multiply-accumulates per element.
        moments: What the weight is multiplied with, where that was measured.
        mean_is_free: Whether a bias takes up the mean of what the layer's outputs miss, where a
            scheme is asked to leave that to it.
        remarks: Where a scheme writes what it has decided, one line each.
    """

    channel_axis: int | None = None
    mask: np.ndarray | None = None
    importance: np.ndarray | None = None
    mu: float = 1.0
    seed: int = 0
    previous: Parameters | None = None
    positions: int | None = None
    moments: Moments | RowUse | None = None
    mean_is_free: bool = True
    remarks: list[str] | None = None


class Scheme(Protocol):
    """The mathematics of one way to compress a weight."""

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        """Fits a float32, float16 or bfloat16 array; SchemeError where it cannot."""
