# SPDX-License-Identifier: Apache-2.0
"""Decoders that mix the elements of a kernel: the frequency domain, and a full matrix."""

from __future__ import annotations

from collections.abc import Sequence
from math import frexp

import numpy as np
import torch
from torch import Tensor, nn

from passes.schemes import MatrixParameters, TransformParameters, UniformParameters
from passes.schemes.matrix_steps import on_grid
from passes.schemes.transform_basis import grid_exponent
from passes.schemes.transform_fold import folding_of
from toolkit.nn.compressed import as_array
from toolkit.nn.decoders import Decoder
from toolkit.nn.stored_size import smallest_integers
from toolkit.nn.through import decoded
from toolkit.nn.transform_basis import Basis


class FrequencyDecoder(Decoder):
    """The latent is a transform of the weight, with one learned log step per frequency; by default
    the real DFT of each kernel: weight = inverse(round(latent / step) * step).

    Oktay et al. 2020, section 4.

    Args:
        shape: Of the weight.
        kind, axes, block, levels: As `passes.schemes.Transform`: other transforms and axes.
        step: Of all frequencies to start from; None for ``relative_step`` times the root mean
            square of the first weight.
        relative_step: See ``step``.
    """

    is_set: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        kind: str = "dft",
        *,
        axes: Sequence[int] | None = None,
        block: int | Sequence[int] | None = None,
        levels: int | None = None,
        step: float | None = None,
        relative_step: float = 0.5,
    ) -> None:
        super().__init__()
        self.basis = Basis(shape, kind, axes, block, levels)
        self.relative_step = relative_step
        frequencies = self.basis.folding.folded_shape[2]
        start = torch.full((frequencies,), 1.0 if step is None else step)
        self.log_step = nn.Parameter(start.log())
        self.register_buffer("is_set", torch.tensor(step is not None))

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.basis.folding.folded_shape

    def latent_of(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            latent = self.basis.to_coefficients(weight)
            if not self.is_set:
                step = self.relative_step * latent.square().mean().sqrt()
                self.log_step.fill_(float(step.log()) if step > 0 else 0.0)
                self.is_set.fill_(True)
            return latent

    def positions(self, latent: Tensor) -> Tensor:
        return latent / self.log_step.exp()

    def forward(self, integers: Tensor) -> Tensor:
        if not self.training:
            return decoded(self.parameters_of(integers), integers)
        return self.basis.to_weight(integers * self.log_step.exp())

    def parameters_of(self, integers: Tensor) -> TransformParameters:
        basis, whole, steps = self.basis, as_array(integers), as_array(self.log_step.exp())
        inner = UniformParameters(
            symbols=smallest_integers(whole),
            scale=np.ones((), np.float32),
            zero_point=None,
            axis=None,
            block_size=0,
            dtype=whole.dtype,
        )
        return TransformParameters(
            inner=inner,
            kind=basis.kind,
            levels=basis.levels,
            folding=basis.folding,
            steps=steps,
            exponent=grid_exponent(whole.astype(np.float64) * steps),
            mask=None,
            dtype=whole.dtype,
        )

    def side_bits(self) -> float:
        return 32.0 * self.log_step.numel() + 64


class MatrixDecoder(Decoder):
    """weight = integers x matrix for the F elements of each kernel (or of a row, or a block of it)
    together: an affine decoder with F x F learned steps, which starts as one step for all.

    The matrix is stored and used rounded to 24 bits of its largest entry
    (`passes.schemes.MatrixParameters`). The latent is in units of integers.

    Args:
        shape: Of the weight.
        axes, block: Which elements are mixed: None for the taps of a convolution, or the last axis.
        step: To start from; None for ``relative_step`` times the root mean square of the weight.
        relative_step: See ``step``.
    """

    is_set: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        axes: Sequence[int] | None = None,
        block: int | Sequence[int] | None = None,
        step: float | None = None,
        relative_step: float = 0.5,
    ) -> None:
        super().__init__()
        self.folding = folding_of(tuple(shape), axes, block)
        self.relative_step = relative_step
        self.matrix = nn.Parameter(torch.eye(self.folding.folded_shape[2]) * (step or 1.0))
        self.register_buffer("is_set", torch.tensor(step is not None))

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.folding.folded_shape

    def latent_of(self, weight: Tensor) -> Tensor:
        folding = self.folding
        with torch.no_grad():
            if not self.is_set:
                step = self.relative_step * weight.square().mean().sqrt()
                self.matrix.mul_(step if step > 0 else 1.0)
                self.is_set.fill_(True)
            folded = weight.reshape(folding.split).permute(folding.order)
            folded = folded.reshape(folding.folded_shape)
            inverse = torch.linalg.pinv(self.matrix.double())
            return (folded.double() @ inverse).float()

    def positions(self, latent: Tensor) -> Tensor:
        return latent

    def forward(self, integers: Tensor) -> Tensor:
        folding = self.folding
        with torch.autocast(integers.device.type, enabled=False):
            if self.training:
                folded = integers.float() @ self.matrix
            else:
                folded = (integers.double() @ self._on_grid().double()).float()
        moved = folded.reshape([folding.split[i] for i in folding.order])
        back = [int(i) for i in np.argsort(folding.order)]
        return moved.permute(back).reshape(folding.shape)

    def _on_grid(self) -> Tensor:
        """`passes.schemes.matrix_steps.on_grid` with gradients."""
        exponent = max(frexp(float(self.matrix.detach().abs().max()))[1] - 24, -140)
        unit = 2.0**exponent
        return ((self.matrix.double() / unit).round() * unit).float()

    def parameters_of(self, integers: Tensor) -> MatrixParameters:
        whole = as_array(integers)
        matrix = on_grid(as_array(self.matrix))
        return MatrixParameters(smallest_integers(whole), matrix, self.folding, whole.dtype)

    def side_bits(self) -> float:
        return 32.0 * self.matrix.numel()
