# SPDX-License-Identifier: Apache-2.0
"""Pruned weights in training: a mask that stays, and the form of what it keeps.

Han et al. 2015, "Learning both weights and connections for efficient neural networks", section 3:
train, prune, train what is left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from passes.errors import SchemeError
from passes.schemes import FitContext, Lossless, Parameters, Prune, PruneParameters, Scheme
from toolkit.nn.compressed import Compressed, as_array
from toolkit.nn.rounding import straight_through
from toolkit.nn.through import CountedBits, decoded


class Masked(Compressed):
    """weight = original where the mask keeps it, else 0; masked originals get no gradient, and are
    never seen again unless the mask is fitted anew.

    The mask is a buffer, so that state dicts hold it. It starts as all ones; `fit` sets it by
    ``prune``, and a new amount of pruning is a new ``prune``.

    Args:
        shape: Of the weight.
        prune: How `fit` chooses the mask; its inner scheme does not count.
        inner: The scheme of what is kept, which is told the mask; gradients are taken at what it
            makes and go to the original. None keeps the floats.
        channel_axis: The axis of output channels.
        interval: Calls of `rate` in training mode between two counts of its bits.
    """

    mask: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        prune: Prune | None = None,
        inner: Scheme | None = None,
        *,
        channel_axis: int | None = 0,
        interval: int = 50,
    ) -> None:
        super().__init__()
        self.prune, self.inner, self.channel_axis = prune, inner, channel_axis
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))
        self._counted = CountedBits(interval)

    def fit(self, original: Tensor) -> None:
        """Chooses the mask by ``prune``; SchemeError where there is none."""
        if self.prune is None:
            raise SchemeError("masked: no prune scheme to fit the mask with")
        context = FitContext(channel_axis=self.channel_axis)
        fitted = self.prune.fit(as_array(original), context)
        self.set_mask(torch.from_numpy(fitted.mask))

    def set_mask(self, mask: Tensor) -> None:
        """Takes a mask, bool of the weight's shape."""
        if mask.shape != self.mask.shape or mask.dtype != torch.bool:
            raise SchemeError(
                f"masked: expected bool {tuple(self.mask.shape)}, found {mask.dtype} "
                f"{tuple(mask.shape)}"
            )
        self.mask.copy_(mask)
        self._counted.forget()

    @property
    def density(self) -> float:
        """The share of elements that are kept."""
        return float(self.mask.float().mean())

    def training_weight(self, original: Tensor) -> Tensor:
        kept = torch.where(self.mask, original, torch.zeros_like(original))
        return (
            kept
            if self.inner is None
            else straight_through(kept, decoded(self.parameters_of(original), original))
        )

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return self.training_weight(original)

    def parameters_of(self, original: Tensor) -> PruneParameters:
        mask = self.mask.cpu().numpy().copy()
        kept = as_array(original) * mask + 0  # no negative zeros
        inner: Parameters
        if self.inner is None:
            inner = Lossless().fit(kept)
        else:
            inner = self.inner.fit(kept, FitContext(channel_axis=self.channel_axis, mask=mask))
        return PruneParameters(inner, mask)

    @torch.compiler.disable
    def rate(self, original: Tensor) -> Tensor:
        """A number, without gradients: which weights are zero is the mask's affair."""
        bits = self._counted.count(self.parameters_of(original), self.training)
        return torch.tensor(bits, device=original.device)
