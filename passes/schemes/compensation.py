# SPDX-License-Identifier: Apache-2.0
"""What the schemes that let features make up for each other's errors can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext
from passes.schemes.moments import MatrixLayout, Moments
from passes.schemes.rate_distortion import check_options
from passes.schemes.weight_values import importance_of


@dataclass(frozen=True)
class Compensation:
    """Options of `Compensated` and `CompensatedTrellis`: exactly one of ``step`` and
    ``relative_step``.

    Attributes:
        step: That of a plain quantiser whose error would cost as much in the layer's output.
        relative_step: The same as a multiple of the weight's root mean square.
        rate_weight: Squared steps of error that a bit is worth; 0 takes the nearest symbols.
        rounds: How often the costs of symbols are learnt from the choice before, 1 to 8.
        sweeps: How often symbols are chosen again at the end, all others given, 0 to 16.
        damping: Share of the inputs' mean square that is added to each one's.
        adaptive: Whether steps may differ along one axis.
        by_output: Whether errors count by what the moments say of each output.
        centred: Whether the mean of what is missed in the layer's output costs nothing, since its
            bias takes it up (passes.bias_correction); where the context knows of none it counts.
    """

    step: float | None = None
    relative_step: float | None = None
    rate_weight: float = 0.12
    rounds: int = 2
    sweeps: int = 1
    damping: float = 0.01
    adaptive: bool = True
    centred: bool = False
    by_output: bool = False

    scheme: ClassVar[str]
    """The name in recipes and errors."""

    def __post_init__(self) -> None:
        check_options(self.scheme, self.step, self.relative_step, self.rate_weight)
        if not 1 <= self.rounds <= 8:
            raise SchemeError(f"{self.scheme}: rounds must be 1 to 8, not {self.rounds}")
        if not 0 <= self.sweeps <= 16:
            raise SchemeError(f"{self.scheme}: sweeps must be 0 to 16, not {self.sweeps}")
        if not (np.isfinite(self.damping) and 0 <= self.damping <= 1):
            raise SchemeError(f"{self.scheme}: damping must be 0 to 1, not {self.damping}")

    def counted_inputs(self, moments: Moments, context: FitContext) -> np.ndarray:
        """The moments by which errors count: about the mean, where a bias takes that up."""
        if self.centred and not context.mean_is_free:
            if context.remarks is not None:
                context.remarks.append("no bias of its own takes up the mean: not centred")
            return moments.inputs
        return moments.covariances() if self.centred else moments.inputs


def output_importance(
    values: np.ndarray, context: FitContext, layout: MatrixLayout, by_output: bool
) -> np.ndarray | None:
    """How much a squared error of each output of a layer counts by what of the context's importance
    differs between outputs, and with ``by_output`` by the moments, float32 [groups, outputs] of
    mean 1; None where they count alike."""
    importance, moments = importance_of(values, context), context.moments
    known = moments.outputs if isinstance(moments, Moments) and by_output else None
    if importance is None and known is None:
        return None
    found = np.ones(1)
    if importance is not None:
        found = layout.matrix(np.asarray(importance)).mean(1)
    if known is not None:
        found = found * known
    return np.ascontiguousarray(found / found.mean(), np.float32)
