# SPDX-License-Identifier: Apache-2.0
"""What the schemes compute in NumPy, inside of torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from passes.schemes import FitContext, Parameters, Scheme
from toolkit.nn.compressed import as_array, as_tensor, stored_bits_of
from toolkit.nn.rounding import straight_through


@torch.compiler.disable
def decoded(parameters: Parameters, like: Tensor) -> Tensor:
    """The weight of fitted parameters, float32, where ``like`` is."""
    return as_tensor(parameters.decode(), like)


@torch.compiler.disable
def fitted_through(
    values: Tensor, scheme: Scheme, mask: np.ndarray | None = None, channel_axis: int | None = None
) -> Tensor:
    """What ``scheme`` makes of ``values``, with the gradient going to them unchanged."""
    context = FitContext(channel_axis=channel_axis, mask=mask)
    made = as_tensor(scheme.fit(as_array(values), context).decode(), values)
    return straight_through(values, made)


class CountedBits:
    """Bits of parameters by the codec, counted anew after so many calls in training mode."""

    def __init__(self, interval: int) -> None:
        self.interval, self._age, self._bits = interval, 0, 0.0

    def forget(self) -> None:
        """Counts at the next call."""
        self._bits = 0.0

    def count(self, parameters: Parameters, training: bool) -> float:
        """Bits; ``parameters`` count only where it is time."""
        if not training or not self._bits or self._age >= self.interval:
            self._age, self._bits = 0, stored_bits_of(parameters)
        self._age += 1
        return self._bits
