# SPDX-License-Identifier: Apache-2.0
"""Forms made of several parts: products of factors, and sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from passes.errors import SchemeError
from passes.schemes import FitContext, Lossless, LowRank, LowRankParameters, Scheme, SumParameters
from passes.schemes.unfolding import Reshape, Unfolding
from toolkit.nn.compressed import Compressed, as_array, as_tensor
from toolkit.nn.through import CountedBits, decoded, fitted_through


class Factored(Compressed):
    """weight = left x right of a given rank, both trained.

    The original is float32 [rank, rows + columns] of the unfolded weight: the columns of the left
    factor, then the rows of the right one. Decoding adds up products: every way to run the file
    agrees with the weight of evaluation mode within float32 round-off
    (`passes.schemes.LowRankParameters.is_exact`).

    Args:
        shape: Of the weight, two dimensions or more.
        rank: At least 1.
        inner: The scheme of each factor; gradients are taken at what it makes. None keeps floats.
        reshape: Which matrix a convolution becomes (`passes.schemes.LowRank`).
        interval: Calls of `rate` in training mode between two counts of its bits.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        rank: int,
        *,
        inner: Scheme | None = None,
        reshape: Reshape = "out_in",
        interval: int = 50,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise SchemeError(f"factored: the rank must be at least 1, not {rank}")
        self.unfolding = Unfolding.of(tuple(shape), reshape, 0)
        self.rank = min(rank, *self.unfolding.matrix_shape)
        self.inner: Scheme = Lossless() if inner is None else inner
        self.reshape: Reshape = reshape
        self._counted = CountedBits(interval)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The factors of a truncated singular value decomposition."""
        scheme = LowRank(rank=self.rank, reshape=self.reshape)
        fitted = scheme.fit(as_array(weight), FitContext(channel_axis=0))
        rows, columns = self.unfolding.matrix_shape
        factors = np.zeros((self.rank, rows + columns), np.float32)
        if fitted.left is not None and fitted.right is not None:
            factors[: fitted.rank, :rows] = self.unfolding.left_matrix(fitted.left.decode()).T
            factors[: fitted.rank, rows:] = self.unfolding.right_matrix(fitted.right.decode())
        return as_tensor(factors, weight)

    def training_weight(self, original: Tensor) -> Tensor:
        rows, _ = self.unfolding.matrix_shape
        left, right = original[:, :rows].t(), original[:, rows:]
        if not isinstance(self.inner, Lossless):
            left = fitted_through(left, self.inner)
            right = fitted_through(right, self.inner)
        with torch.autocast(original.device.type, enabled=False):
            matrix = left.float() @ right.float()
        back = [int(axis) for axis in np.argsort(self.unfolding.axes)]
        return matrix.reshape(self.unfolding.permuted).permute(back).contiguous()

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return decoded(self.parameters_of(original), original)

    def parameters_of(self, original: Tensor) -> LowRankParameters:
        rows, _ = self.unfolding.matrix_shape
        factors = as_array(original)
        left = self.unfolding.left_layer(np.ascontiguousarray(factors[:, :rows].T))
        right = self.unfolding.right_layer(np.ascontiguousarray(factors[:, rows:]))
        context = FitContext(channel_axis=0)
        return LowRankParameters(
            self.inner.fit(left, context),
            self.inner.fit(right, context),
            self.unfolding,
            np.dtype(np.float32),
        )

    @torch.compiler.disable
    def rate(self, original: Tensor) -> Tensor:
        """A number, without gradients: the rank decides."""
        bits = self._counted.count(self.parameters_of(original), self.training)
        return torch.tensor(bits, device=original.device)


class Summed(Compressed):
    """weight = the sum of several forms, each with an original of its own.

    The original is float32 [parts, ...]: those of the parts, which must have the weight's shape.
    To start from a weight, each part in turn takes what those before it leave.

    Args:
        parts: The forms, in the order in which their weights are added.
    """

    def __init__(self, parts: Sequence[Compressed]) -> None:
        super().__init__()
        if not parts:
            raise SchemeError("summed: give at least one part")
        self.parts = nn.ModuleList(parts)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Originals of the parts; masks and scales are fitted on the way."""
        rest, originals = weight.detach().clone(), []
        for part in self._forms():
            inverse = getattr(part, "right_inverse", None)
            original = rest.clone() if inverse is None else inverse(rest)
            if original.shape != weight.shape:
                raise SchemeError(
                    f"summed: a part's original is {tuple(original.shape)}, "
                    f"expected {tuple(weight.shape)}"
                )
            part.fit(original)
            originals.append(original)
            rest = rest - part.evaluation_weight(original).detach()
        return torch.stack(originals)

    def fit(self, original: Tensor) -> None:
        for part, own in zip(self._forms(), original, strict=True):
            part.fit(own)

    def training_weight(self, original: Tensor) -> Tensor:
        return self._sum(original, "training_weight")

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return self._sum(original, "evaluation_weight")

    def _sum(self, original: Tensor, method: str) -> Tensor:
        weights = [
            getattr(part, method)(own)
            for part, own in zip(self._forms(), original.unbind(0), strict=True)
        ]
        total: Tensor = weights[0]
        for weight in weights[1:]:
            total = total + weight
        return total

    def parameters_of(self, original: Tensor) -> SumParameters:
        pairs = zip(self._forms(), original.unbind(0), strict=True)
        return SumParameters(tuple(part.parameters_of(own) for part, own in pairs))

    def rate(self, original: Tensor) -> Tensor:
        pairs = zip(self._forms(), original.unbind(0), strict=True)
        total = torch.stack([part.rate(own).reshape(()) for part, own in pairs]).sum()
        return total

    def update_average(self, original: Tensor) -> None:
        for part, own in zip(self._forms(), original.unbind(0), strict=True):
            part.update_average(own)

    def _forms(self) -> list[Compressed]:
        return [part for part in self.parts if isinstance(part, Compressed)]
