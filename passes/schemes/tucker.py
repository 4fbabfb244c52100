# SPDX-License-Identifier: Apache-2.0
"""Tucker-2: a convolution's two channel axes each through a smaller number of channels (Kim et al.
2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
Applications", section 3). Started by the higher-order singular value decomposition, improved by
orthogonal iteration (De Lathauwer et al. 2000, "On the Best Rank-1 and Rank-(R1, ..., RN)
Approximation", section 3.2), whose squared error never rises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import numpy as np
import scipy

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.lossless import Lossless
from passes.schemes.low_rank_factors import kept_sides
from passes.schemes.rank_selection import rank_by_energy
from passes.schemes.weight_values import finite_float32

_SETTLED = 1e-9  # of the squared norm: an iteration that gains less is the last


@dataclass(frozen=True, eq=False)
class TuckerParameters(Parameters):
    """Fitted factors, in the layout of three layers; all None at rank 0, which decodes to zeros.

    Attributes:
        out_factor: [n, r_out, 1, …], the last layer.
        core: [r_out, r_in, taps …].
        in_factor: [r_in, m, 1, …], the first layer.
        dims: The weight's dimensions n, m, taps ….
        dtype: The weight's own type, which the factors have too.
    """

    out_factor: Parameters | None
    core: Parameters | None
    in_factor: Parameters | None
    dims: tuple[int, ...]
    dtype: np.dtype

    name: ClassVar[str] = "tucker"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.dims

    @property
    def ranks(self) -> tuple[int, int]:
        """r_out and r_in."""
        return (0, 0) if self.core is None else (self.core.shape[0], self.core.shape[1])

    def decode(self) -> np.ndarray:
        """Two products in float32, rounded to the weight's type. ONNX Runtime adds up in another
        order: it agrees within float32 round-off, about 1e-6 of the largest weight."""
        if self.out_factor is None or self.core is None or self.in_factor is None:
            return np.zeros(self.dims, self.dtype)
        (n, m), (r_out, r_in) = self.dims[:2], self.ranks
        last = self.out_factor.decode().astype(np.float32).reshape(n, r_out)
        core = self.core.decode().astype(np.float32).reshape(r_out, -1)
        first = self.in_factor.decode().astype(np.float32).reshape(r_in, m)
        wide = (last @ core).reshape(n, r_in, -1)
        return (first.T @ wide).reshape(self.dims).astype(self.dtype, copy=False)

    @property
    def is_exact(self) -> bool:
        return not self.children()

    def bits(self) -> float:
        """Those of the factors."""
        return sum(child.bits() for child in self.children())

    def children(self) -> tuple[Parameters, ...]:
        parts = (self.out_factor, self.core, self.in_factor)
        return tuple(part for part in parts if part is not None)


@dataclass(frozen=True)
class Tucker:
    """How to factorise: exactly one of ``ranks``, ``energy`` and ``budget``.

    Attributes:
        ranks: r_out and r_in, at least 0 each; what the weight has less is not made up.
        energy: The share of the squared norm to be kept, 0 to 1; half of the loss for each axis.
        budget: Elements of core and factors, which are also the multiply-accumulates for each
            output position of a layer without stride; the pair of ranks with the least error of
            the first step is taken.
        iterations: Of the orthogonal iteration at most.
        inner: Compresses core and factors.
    """

    ranks: tuple[int, int] | None = None
    energy: float | None = None
    budget: int | None = None
    iterations: int = 20
    inner: Scheme = Lossless()

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.ranks, self.energy, self.budget)) != 1:
            raise SchemeError("tucker: give exactly one of ranks, energy and budget")
        if self.ranks is not None and (len(self.ranks) != 2 or min(self.ranks) < 0):
            raise SchemeError(f"tucker: ranks are two numbers of at least 0, not {self.ranks}")
        if self.energy is not None and not 0 <= self.energy <= 1:
            raise SchemeError(f"tucker: the energy must be 0 to 1, not {self.energy}")
        if self.budget is not None and self.budget < 0:
            raise SchemeError(f"tucker: the budget must be at least 0, not {self.budget}")
        if self.iterations < 0:
            raise SchemeError(f"tucker: iterations must be at least 0, not {self.iterations}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> TuckerParameters:
        """Factorises a float array [n, m, taps …]; importance is not regarded.

        A mask must leave out whole channels. Raises SchemeError for another mask, fewer than two
        dimensions, an empty array, NaN or infinity, and what ``inner`` raises.
        """
        context = context or FitContext()
        finite_float32(weight)
        if weight.ndim < 2:
            raise SchemeError(f"tucker: a weight of shape {weight.shape} has no two channel axes")
        tensor = weight.astype(np.float64).reshape(*weight.shape[:2], -1)
        kept = np.ones(tensor.shape[0], bool), np.ones(tensor.shape[1], bool)
        if context.mask is not None:
            taps = context.mask.reshape(tensor.shape)
            if not np.array_equal(taps.any(axis=2), taps.all(axis=2)):
                raise SchemeError("tucker: a mask must leave out whole channels")
            kept = kept_sides(np.asarray(taps.any(axis=2)), "tucker")
            tensor = tensor * taps
        first, second = leading_basis(tensor, 0), leading_basis(tensor, 1)
        r_out, r_in = self._ranks(tensor, first, second)
        if not r_out or not r_in:
            return TuckerParameters(None, None, None, weight.shape, weight.dtype)
        bases = orthogonal_iteration(tensor, second[:, :r_in], r_out, self.iterations)[0]
        return self._compressed(tensor, *bases, kept, weight, context)

    def _ranks(self, tensor: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
        """r_out and r_in; none beyond what stands out of round-off."""
        rotated = np.einsum("nmt,na,mb->abt", tensor, first, second, optimize=True)
        squares = np.einsum("abt,abt->ab", rotated, rotated)
        spectra = np.sqrt(squares.sum(axis=1)), np.sqrt(squares.sum(axis=0))
        limits = [int(np.count_nonzero(s > 1e-12 * np.linalg.norm(s))) for s in spectra]
        if self.ranks is not None:
            wanted = self.ranks
        elif self.energy is not None:
            share = 0.5 * (1.0 + self.energy) if self.energy < 1 else 1.0
            wanted = (rank_by_energy(spectra[0], share), rank_by_energy(spectra[1], share))
        else:
            wanted = self._within_budget(tensor.shape, squares)
        r_out, r_in, taps = min(wanted[0], limits[0]), min(wanted[1], limits[1]), tensor.shape[2]
        return min(r_out, r_in * taps), min(r_in, r_out * taps)

    def _within_budget(self, shape: tuple[int, ...], squares: np.ndarray) -> tuple[int, int]:
        """The pair that keeps most energy of the rotated tensor; the cheapest of equals."""
        n, m, taps = shape
        kept = np.pad(squares.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        outs, ins = np.arange(kept.shape[0])[:, None], np.arange(kept.shape[1])[None, :]
        costs = n * outs + m * ins + taps * outs * ins
        kept = np.where(costs <= (self.budget or 0), kept, -1.0)
        best = np.where(kept >= kept.max() * (1 - 1e-12), costs, costs.max() + 1)
        r_out, r_in = np.unravel_index(int(best.argmin()), best.shape)
        return int(r_out), int(r_in)

    def _compressed(
        self,
        tensor: np.ndarray,
        out_basis: np.ndarray,
        in_basis: np.ndarray,
        kept: tuple[np.ndarray, np.ndarray],
        weight: np.ndarray,
        context: FitContext,
    ) -> TuckerParameters:
        """Of each slice of the core the root of its norm goes to the factor beside it, as the
        roots of singular values do in `low_rank`."""
        core = np.einsum("nmt,na,mb->abt", tensor, out_basis, in_basis, optimize=True)
        scales = [np.sqrt(np.sqrt(np.einsum(f"abt,abt->{s}", core, core))) for s in "ab"]
        scales = [np.where(scale > 1e-6 * scale.max(), scale, 1.0) for scale in scales]
        core = core / (scales[0][:, None, None] * scales[1][None, :, None])
        ones = (1,) * (weight.ndim - 2)
        arrays = [
            (out_basis * scales[0] * kept[0][:, None]).reshape(*out_basis.shape, *ones),
            core.reshape(*core.shape[:2], *weight.shape[2:]),
            (in_basis * scales[1] * kept[1][:, None]).T.reshape(*in_basis.shape[::-1], *ones),
        ]
        masks: list[np.ndarray | None] = [None, None, None]
        if context.mask is not None:
            out_mask = np.broadcast_to(kept[0][:, None], out_basis.shape)
            in_mask = np.broadcast_to(kept[1], in_basis.shape[::-1])
            masks = [out_mask.reshape(arrays[0].shape), None, in_mask.reshape(arrays[2].shape)]
        own = FitContext(channel_axis=0, mu=context.mu, seed=context.seed)
        fits = [
            self.inner.fit(np.ascontiguousarray(array.astype(weight.dtype)), replace(own, mask=m))
            for array, m in zip(arrays, masks, strict=True)
        ]
        return TuckerParameters(fits[0], fits[1], fits[2], weight.shape, weight.dtype)


def leading_basis(tensor: np.ndarray, axis: int, count: int | None = None) -> np.ndarray:
    """The ``count`` strongest left singular vectors (all where None) of a tensor [n, m, taps]
    unfolded along ``axis``, as columns, strongest first."""
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    size = len(unfolded)
    wanted = [size - (count or size), size - 1]
    vectors = scipy.linalg.eigh(unfolded @ unfolded.T, subset_by_index=wanted)[1]
    return np.ascontiguousarray(vectors[:, ::-1])


def orthogonal_iteration(
    tensor: np.ndarray, in_basis: np.ndarray, r_out: int, iterations: int
) -> tuple[tuple[np.ndarray, np.ndarray], list[float]]:
    """Improves the bases in turn, each the best one for the other.

    Args:
        tensor: float64 [n, m, taps].
        in_basis: [m, r_in], orthonormal, to start from.
        r_out: Columns of the other basis.
        iterations: At most; after 0 of them the other basis has still been fitted once.

    Returns:
        The bases [n, r_out] and [m, r_in], and the squared error after each step.
    """
    total, r_in, errors = float(np.sum(tensor**2)), in_basis.shape[1], list[float]()
    out_basis = np.empty((tensor.shape[0], r_out))
    for step in range(iterations + 1):
        narrow = np.einsum("nmt,mb->nbt", tensor, in_basis, optimize=True)
        out_basis = leading_basis(narrow, 0, r_out)
        if step:
            flat = np.einsum("nmt,na->amt", tensor, out_basis, optimize=True)
            in_basis = leading_basis(flat, 1, r_in)
            core = np.einsum("amt,mb->abt", flat, in_basis, optimize=True)
        else:
            core = np.einsum("nbt,na->abt", narrow, out_basis, optimize=True)
        errors.append(total - float(np.sum(core**2)))
        if len(errors) > 1 and errors[-2] - errors[-1] <= _SETTLED * total:
            break
    return (out_basis, in_basis), errors


def num_elements(dims: tuple[int, ...], ranks: tuple[int, int]) -> int:
    """Elements of core and factors of a weight [n, m, taps …]."""
    return dims[0] * ranks[0] + dims[1] * ranks[1] + ranks[0] * ranks[1] * prod(dims[2:])
