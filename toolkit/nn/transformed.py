# SPDX-License-Identifier: Apache-2.0
"""Weights that are trained in the transform domain: fixed bases with truncation, and cosines whose
frequencies are learned."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, pi

import numpy as np
import torch
from torch import Tensor

from passes.errors import SchemeError
from passes.schemes import (
    CosineRows,
    CosineRowsParameters,
    FitContext,
    Lossless,
    PruneParameters,
    Scheme,
    TransformParameters,
)
from passes.schemes.cosine_rows import fitted_rows
from passes.schemes.transform_basis import grid_exponent
from toolkit.nn.compressed import Compressed, as_array, as_tensor
from toolkit.nn.through import CountedBits, decoded, fitted_through
from toolkit.nn.transform_basis import Basis


class Transformed(Compressed):
    """weight = inverse transform of trained coefficients, of which only low frequencies exist.

    Args:
        shape: Of the weight.
        kind, axes, block, levels: As `passes.schemes.Transform`.
        keep: The share of frequencies that stay along each transformed axis, the lowest ones;
            above 0 to 1.
        inner: The scheme of the coefficients; gradients are taken at what it makes. None keeps
            floats.
        interval: Calls of `rate` in training mode between two counts of its bits.
    """

    mask: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        kind: str = "dct",
        *,
        axes: Sequence[int] | None = None,
        block: int | Sequence[int] | None = None,
        levels: int | None = None,
        keep: float = 1.0,
        inner: Scheme | None = None,
        interval: int = 50,
    ) -> None:
        super().__init__()
        if not 0 < keep <= 1:
            raise SchemeError(f"transformed: keep must be above 0 to 1, not {keep}")
        self.basis = Basis(shape, kind, axes, block, levels)
        self.inner, self._counted = inner, CountedBits(interval)
        kept = np.ones(1, bool)
        for order in self.basis.orders():
            low = order < ceil(keep * (int(order.max()) + 1))
            kept = np.logical_and.outer(kept, low).reshape(-1)
        self.register_buffer("mask", torch.from_numpy(kept), persistent=False)
        self.is_truncated = not bool(kept.all())

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The coefficients, float32 [A, B, F]; those that do not exist are 0."""
        return self._kept(self.basis.to_coefficients(weight.detach()))

    def _kept(self, coefficients: Tensor) -> Tensor:
        return torch.where(self.mask, coefficients, torch.zeros_like(coefficients))

    def training_weight(self, original: Tensor) -> Tensor:
        coefficients = self._kept(original)
        if self.inner is not None:
            mask = self._mask(original) if self.is_truncated else None
            coefficients = fitted_through(coefficients, self.inner, mask)
        return self.basis.to_weight(coefficients)

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return decoded(self.parameters_of(original), original)

    def _mask(self, original: Tensor) -> np.ndarray:
        return self.mask.expand(original.shape).cpu().numpy().copy()

    def parameters_of(self, original: Tensor) -> TransformParameters:
        coefficients = as_array(self._kept(original)) + 0.0
        mask = self._mask(original) if self.is_truncated else None
        inner = (self.inner or Lossless()).fit(coefficients, FitContext(mask=mask))
        if mask is not None:
            inner = PruneParameters(inner, mask)
        return TransformParameters(
            inner=inner,
            kind=self.basis.kind,
            levels=self.basis.levels,
            folding=self.basis.folding,
            steps=None,
            exponent=grid_exponent(inner.decode().astype(np.float64)),
            mask=None,
            dtype=np.dtype(np.float32),
        )

    @torch.compiler.disable
    def rate(self, original: Tensor) -> Tensor:
        """A number, without gradients."""
        bits = self._counted.count(self.parameters_of(original), self.training)
        return torch.tensor(bits, device=original.device)


class LearnedCosines(Compressed):
    """Row k of a matrix is 2 n_k cos(pi f_k (2t + 1) / (2 out)): an amplitude and a frequency for
    each row are trained, ``2 out`` numbers in place of ``in out``.

    The original is float32 [2, out]: amplitudes, then frequencies.

    Args:
        shape: Of the weight, (out, in).
        inner: The scheme of amplitudes and frequencies when they are stored; training does not know
            it. None keeps floats.
        start: ``weight`` fits amplitudes and frequencies to the weight; ``dct`` takes the rows of a
            DCT, amplitudes from the weight's root mean square.
        interval: Calls of `rate` in training mode between two counts of its bits.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        inner: Scheme | None = None,
        start: str = "dct",
        interval: int = 50,
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise SchemeError(f"learned cosines: expected a matrix, found shape {tuple(shape)}")
        if start not in ("dct", "weight"):
            raise SchemeError(f"learned cosines: start must be dct or weight, not {start!r}")
        self.shape, self.start = tuple(shape), start
        self.scheme = CosineRows() if inner is None else CosineRows(inner)
        self._counted = CountedBits(interval)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Amplitudes and frequencies to start from."""
        if tuple(weight.shape) != self.shape:
            raise SchemeError(
                f"learned cosines: expected {self.shape}, found {tuple(weight.shape)}"
            )
        if self.start == "weight":
            return as_tensor(np.stack(fitted_rows(as_array(weight))), weight)
        rows, columns = self.shape
        frequencies = torch.arange(rows, device=weight.device) * (min(rows, columns) / columns)
        size = weight.detach().square().mean().sqrt() / 2**0.5
        return torch.stack([size.expand(rows), frequencies.float()])

    def training_weight(self, original: Tensor) -> Tensor:
        rows, columns = self.shape
        amplitudes, frequencies = original.double().unbind(0)
        places = torch.arange(1, 2 * columns, 2, device=original.device, dtype=torch.float64)
        angles = frequencies[:, None] * (places * (pi / (2 * rows)))
        return (2 * amplitudes[:, None] * torch.cos(angles)).float()

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return decoded(self.parameters_of(original), original)

    def parameters_of(self, original: Tensor) -> CosineRowsParameters:
        amplitudes, frequencies = as_array(original)
        dtype = np.dtype(np.float32)
        return self.scheme.of(amplitudes, frequencies, self.shape[1], dtype)

    @torch.compiler.disable
    def rate(self, original: Tensor) -> Tensor:
        """A number, without gradients."""
        bits = self._counted.count(self.parameters_of(original), self.training)
        return torch.tensor(bits, device=original.device)
