# SPDX-License-Identifier: Apache-2.0
"""The transforms of ``passes.schemes`` on tensors, with gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from passes.schemes.transform_fold import Folding, folding_of
from passes.schemes.transform_kinds import analysis, check_kind, synthesis


class Basis(nn.Module):
    """A separable transform of a weight of ``shape``; arguments as `passes.schemes.Transform`."""

    def __init__(
        self,
        shape: tuple[int, ...],
        kind: str,
        axes: Sequence[int] | None = None,
        block: int | Sequence[int] | None = None,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        check_kind(kind)
        self.kind, self.levels = kind, levels
        self.folding: Folding = folding_of(tuple(shape), axes, block)
        for axis, size in enumerate(self.folding.sizes):
            for name, make in (("analysis", analysis), ("synthesis", synthesis)):
                matrix = torch.from_numpy(make(kind, size, levels).astype(np.float32))
                self.register_buffer(f"{name}{axis}", matrix, persistent=False)

    def to_coefficients(self, weight: Tensor) -> Tensor:
        """[A, B, F]."""
        folding = self.folding
        moved = weight.reshape(folding.split).permute(folding.order)
        return self._along_axes(moved.reshape(folding.folded_shape), "analysis")

    def to_weight(self, coefficients: Tensor) -> Tensor:
        """The weight of coefficients [A, B, F], within float32 round-off."""
        folding = self.folding
        folded = self._along_axes(coefficients, "synthesis")
        moved = folded.reshape([folding.split[i] for i in folding.order])
        inverse = [int(i) for i in np.argsort(folding.order)]
        return moved.permute(inverse).reshape(folding.shape)

    def _along_axes(self, folded: Tensor, name: str) -> Tensor:
        # Autocast would compute products in bfloat16.
        with torch.autocast(folded.device.type, enabled=False):
            value = folded.float().reshape(-1, *self.folding.sizes)
            for axis in range(len(self.folding.sizes)):
                matrix = getattr(self, f"{name}{axis}")
                value = torch.movedim(torch.movedim(value, axis + 1, -1) @ matrix, -1, axis + 1)
            return value.reshape(folded.shape)

    def orders(self) -> list[np.ndarray]:
        """For each axis the frequency of every coefficient: int [size], 0 the lowest."""
        found = []
        for size in self.folding.sizes:
            order = np.arange(size)
            if self.kind == "dft":
                order = np.where(order > size // 2, order - size // 2, order)
            found.append(order)
        return found
