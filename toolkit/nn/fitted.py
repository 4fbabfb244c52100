# SPDX-License-Identifier: Apache-2.0
"""Any scheme as the form of a weight: gradients are taken at what the scheme makes of it, and go to
the weight itself.

With a quantiser this is quantized distillation's way to train (Polino, Pascanu, Alistarh 2018,
"Model compression via distillation and quantization", section 3): the full-precision weight is kept
and updated by the gradient at its quantised value.
"""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from passes.errors import SchemeError
from passes.schemes import FitContext, Parameters, Scheme, UniformParameters
from toolkit.nn.codec_rate import CodecRate
from toolkit.nn.compressed import Compressed, as_array, as_tensor
from toolkit.nn.rounding import straight_through
from toolkit.nn.through import CountedBits

Gradient = Literal["straight_through", "truncated"]


class Fitted(Compressed):
    """weight = scheme.fit(original).decode(), fitted anew at each step of training.

    Args:
        scheme: Of `passes.schemes`. One with ``rounding="stochastic"`` draws anew at each step, and
            rounds to the nearest value in evaluation mode, as it is stored.
        gradient: ``straight_through`` hands the gradient on as it is; ``truncated`` drops it where
            the original lies outside the range of the values that the scheme makes.
        channel_axis: The axis of output channels.
        seed: Of random rounding; further draws follow from it.
        interval: Calls of `rate` in training mode between two counts of its bits, where the scheme
            is none of symbols and steps and its rate has no gradient.
    """

    num_draws: Tensor

    def __init__(
        self,
        scheme: Scheme,
        *,
        gradient: Gradient = "straight_through",
        channel_axis: int | None = 0,
        seed: int = 0,
        interval: int = 50,
    ) -> None:
        super().__init__()
        if gradient not in ("straight_through", "truncated"):
            raise SchemeError(f"gradient must be straight_through or truncated, not {gradient!r}")
        self.scheme, self.gradient, self.interval = scheme, gradient, interval
        self.channel_axis, self.seed = channel_axis, seed
        self.stored_scheme: Any = scheme
        if is_dataclass(scheme) and getattr(scheme, "rounding", "nearest") == "stochastic":
            self.stored_scheme = replace(scheme, rounding="nearest")  # type: ignore[type-var]
        self.bits: CodecRate | None = None
        self._draws = 0
        self._counted = CountedBits(interval)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself; SchemeError where the scheme cannot be fitted to it."""
        fitted = self.parameters_of(weight)
        if isinstance(fitted, UniformParameters) and not fitted.block_size:
            self.bits = CodecRate(fitted.shape, interval=self.interval)
            self.bits.train(self.training)
            self.bits.to(weight.device)
        return weight.detach().clone()

    def training_weight(self, original: Tensor) -> Tensor:
        weight = self._decoded(original, training=True)
        if self.gradient == "truncated":
            original = original.clamp(weight.min(), weight.max())
        return straight_through(original, weight)

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return straight_through(original, self._decoded(original, training=False))

    @torch.compiler.disable
    def _decoded(self, original: Tensor, *, training: bool) -> Tensor:
        scheme, seed = self.stored_scheme, self.seed
        if training and self.scheme is not self.stored_scheme:
            scheme, seed = self.scheme, self.seed + self._draws
            self._draws += 1
        context = FitContext(channel_axis=self.channel_axis, seed=seed)
        return as_tensor(scheme.fit(as_array(original), context).decode(), original)

    def parameters_of(self, original: Tensor) -> Parameters:
        context = FitContext(channel_axis=self.channel_axis, seed=self.seed)
        fitted: Parameters = self.stored_scheme.fit(as_array(original), context)
        return fitted

    @torch.compiler.disable
    def rate(self, original: Tensor) -> Tensor:
        """With gradients where the scheme is one of symbols times steps; else a number."""
        fitted = self.parameters_of(original)
        if self.bits is not None and isinstance(fitted, UniformParameters):
            return self._symbol_rate(original, fitted, self.bits)
        bits = self._counted.count(fitted, self.training)
        return torch.tensor(bits, device=original.device)

    def _symbol_rate(self, original: Tensor, fitted: UniformParameters, bits: CodecRate) -> Tensor:
        spread, side = fitted.partition.spread, 32 * fitted.scale.size
        positions = original
        if fitted.offset is not None:
            positions = positions - as_tensor(spread(fitted.offset), original)
            side += 32 * fitted.offset.size
        positions = positions / as_tensor(spread(fitted.scale), original)
        if fitted.zero_point is not None:
            positions = positions + as_tensor(spread(fitted.zero_point), original)
            side += 8 * fitted.zero_point.nbytes
        # Symbols that the scheme chooses otherwise than by rounding (signs) are where they are.
        chosen = as_tensor(fitted.symbols, original)
        positions = torch.where(
            positions.detach().round() == chosen, positions, positions - positions.detach() + chosen
        )
        total: Tensor = bits(positions)
        return total + float(side)

    def get_extra_state(self) -> Tensor:
        """How often random rounding has drawn, int64 []."""
        return torch.tensor(self._draws)

    def set_extra_state(self, state: Any) -> None:
        """Goes on with the draws behind those of a state dict."""
        self._draws = int(state)
