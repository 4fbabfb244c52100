# SPDX-License-Identifier: Apache-2.0
"""A learned factorised prior as the rate of latents.

Balle et al. 2018, "Variational image compression with a scale hyperprior", appendix 6.1, on weights
as in Oktay et al. 2020, "Scalable model compression by entropy penalized reparameterization",
section 2.
"""

from __future__ import annotations

from math import log, prod
from typing import Any

import torch
from torch import Tensor, nn

from passes.errors import SchemeError

_LEAST = 1e-9  # probability


class FactorizedPrior(nn.Module):
    """p(k) = c(k + 1/2) - c(k - 1/2), c a learned cumulative: monotone by construction.

    In training mode bits are those of positions plus uniform noise of width 1; in evaluation mode
    of the nearest integers. That is the published form, and it has three limits, for which
    `CodecRate` is the default: it knows neither the codec's classes and contexts nor headers and
    tables; and where most positions are well inside of (-1/2, 1/2), under about 0.5 bits per
    weight, the noisy positions have more entropy than the integers have, so that the rate of
    training can be several times that of evaluation.

    Args:
        channels: Priors: 1, or one for each index of the last axes, the taps of a kernel.
        filters: Widths of the hidden layers of the cumulative.
        init_scale: Width of the distribution at the start, in symbols.
        tail_mass: What is left outside of the outer quantiles that `auxiliary_loss` fits.
    """

    quantiles: Tensor

    def __init__(
        self,
        channels: int = 1,
        *,
        filters: tuple[int, ...] = (3, 3, 3),
        init_scale: float = 10.0,
        tail_mass: float = 2.0**-8,
    ) -> None:
        super().__init__()
        if channels < 1 or not filters or not init_scale > 0 or not 0 < tail_mass < 1:
            raise SchemeError(
                "factorized prior: expected channels of 1 or more, filters, a positive init_scale "
                "and a tail_mass between 0 and 1"
            )
        self.channels, self.tail_mass = channels, tail_mass
        widths = (1, *filters, 1)
        scale = init_scale ** (1 / (len(filters) + 1))
        self.matrices, self.biases, self.factors = (nn.ParameterList() for _ in range(3))
        for before, after in zip(widths, widths[1:], strict=False):
            start = log(torch.expm1(torch.tensor(1 / scale / after)).item())
            self.matrices.append(nn.Parameter(torch.full((channels, after, before), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, after, 1) - 0.5))
        for width in filters:
            self.factors.append(nn.Parameter(torch.zeros(channels, width, 1)))
        outer = torch.tensor([-init_scale, 0.0, init_scale])
        self.quantiles = nn.Parameter(outer.repeat(channels, 1))

    def forward(self, positions: Tensor) -> Tensor:
        """Bits of all positions, float32 []."""
        if self.training:
            positions = positions + (torch.rand_like(positions) - 0.5)
        else:
            positions = positions.round()
        return self.bits_of(positions)

    def bits_of(self, values: Tensor) -> Tensor:
        """Bits of values as they are, which need not be integers."""
        if values.numel() % self.channels:
            raise SchemeError(
                f"factorized prior: {self.channels} channels do not divide {tuple(values.shape)}"
            )
        with torch.autocast(values.device.type, enabled=False):
            rows = values.float().reshape(-1, self.channels).t().unsqueeze(1)  # [C, 1, N]
            lower, upper = self.logits(rows - 0.5), self.logits(rows + 0.5)
            sign = -torch.sign(lower + upper).detach()  # the side on which sigmoids are not near 1
            sign = torch.where(sign == 0, torch.ones_like(sign), sign)
            mass = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
            return -torch.log2(mass.clamp(min=_LEAST)).sum()

    def logits(self, values: Tensor, *, fixed: bool = False) -> Tensor:
        """The cumulative before its sigmoid, [C, 1, N]; without gradients to the prior where it is
        ``fixed``."""
        held: Any = Tensor.detach if fixed else (lambda tensor: tensor)
        for index, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            values = nn.functional.softplus(held(matrix)) @ values + held(bias)
            if index < len(self.factors):
                values = values + torch.tanh(held(self.factors[index])) * torch.tanh(values)
        return values

    def auxiliary_loss(self) -> Tensor:
        """The distance of the quantiles (lower tail, median, upper tail) from where the cumulative
        has them, 0-dim; its gradient reaches the quantiles only. Part of the loss, with a weight of
        one, it makes them follow the prior."""
        tail = log(2 / self.tail_mass - 1)
        target = torch.tensor([-tail, 0.0, tail], device=self.quantiles.device)
        found = self.logits(self.quantiles.unsqueeze(1), fixed=True).squeeze(1)
        return (found - target).abs().sum()


def prior_per_tap(shape: tuple[int, ...], **options: Any) -> FactorizedPrior:
    """A prior with one channel for each tap of a convolution's kernel, one for a matrix."""
    return FactorizedPrior(max(prod(shape[2:]), 1), **options)


def auxiliary_loss(model: nn.Module) -> Tensor:
    """Those of all factorised priors in ``model``, to be added to its loss."""
    losses = [m.auxiliary_loss() for m in model.modules() if isinstance(m, FactorizedPrior)]
    return torch.stack(losses).sum() if losses else torch.zeros(())
