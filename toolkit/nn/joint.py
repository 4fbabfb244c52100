# SPDX-License-Identifier: Apache-2.0
"""Forms of several tensors that share a stage: one budget of pruning, one codebook, one scale.

The joint compressions of Idelbayev and Carreira-Perpiñán 2020, "A flexible, extensible software
framework for model compression based on the LC algorithm", section 4, trained straight through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passes.errors import SchemeError
from passes.schemes import (
    FitContext,
    Lossless,
    LowRank,
    LowRankParameters,
    Parameters,
    Prune,
    PruneParameters,
    Scheme,
    fit_jointly,
    prune_jointly,
)
from toolkit.nn import combined
from toolkit.nn.compressed import Compressed, as_array, as_tensor
from toolkit.nn.rounding import straight_through
from toolkit.nn.through import CountedBits

Places = Mapping[str, tuple[nn.Module, str]]
"""Name -> the module that has the tensor, and its name there."""


class JointGroup:
    """Tensors that are fitted together.

    Whatever of them is read first fits all, from the tensors that are trained; the others then find
    it done, until one of those tensors changes.

    Args:
        scheme: With its inner schemes. An outer `Prune` becomes masks, which stay until
            `Joint.fit`; the rest is fitted anew at each step.
        shared: Kinds of scheme that the tensors share, as `passes.schemes.fit_jointly`.
        places: The tensors.
        channel_axes: Name -> axis of output channels; 0 for those left out.
    """

    def __init__(
        self,
        scheme: Scheme,
        shared: Collection[type],
        places: Places,
        channel_axes: Mapping[str, int] | None = None,
    ) -> None:
        self.places, self.shared = dict(places), frozenset(shared)
        self.prune = scheme if isinstance(scheme, Prune) else None
        self.scheme: Scheme | None = scheme if self.prune is None else self.prune.inner
        self._axes = dict(channel_axes or {})
        self.forms = {name: Joint(self, name) for name in self.places}
        self._key: tuple[Any, ...] = ()
        self._found: dict[str, Parameters] = {}

    def fit_masks(self) -> None:
        """Chooses all masks anew, where there is pruning."""
        if self.prune is None:
            return
        arrays = {name: as_array(tensor) for name, tensor in self._trained().items()}
        contexts = {name: self._context(name) for name in arrays}
        bare = replace(self.prune, inner=None)
        found: Mapping[str, Any] = (
            prune_jointly(arrays, bare, contexts)
            if Prune in self.shared
            else {name: bare.fit(array, contexts[name]) for name, array in arrays.items()}
        )
        for name, fitted in found.items():
            self.forms[name].mask.copy_(torch.from_numpy(fitted.mask))

    def parameters(self, name: str, original: Tensor) -> Parameters:
        """What is stored of tensor ``name``, which is ``original`` now."""
        tensors = self._trained() | {name: original}
        masks = [form.mask for form in self.forms.values()]
        key = tuple((id(tensor), tensor._version) for tensor in (*tensors.values(), *masks))
        if key != self._key:
            self._found = self._fitted({n: as_array(tensor) for n, tensor in tensors.items()})
            self._key = key
        return self._found[name]

    def _fitted(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Parameters]:
        if self.prune is None:
            assert self.scheme is not None
            contexts = {name: self._context(name) for name in arrays}
            return fit_jointly(self.scheme, self.shared, arrays, contexts)
        masks = {name: self.forms[name].mask.cpu().numpy().copy() for name in arrays}
        kept = {name: array * masks[name] + 0 for name, array in arrays.items()}  # + 0: no -0
        found: Mapping[str, Parameters]
        if self.scheme is None:
            found = {name: Lossless().fit(array) for name, array in kept.items()}
        else:
            contexts = {name: replace(self._context(name), mask=masks[name]) for name in arrays}
            found = fit_jointly(self.scheme, self.shared - {Prune}, kept, contexts)
        return {name: PruneParameters(found[name], masks[name]) for name in arrays}

    def _context(self, name: str) -> FitContext:
        return FitContext(channel_axis=self._axes.get(name, 0))

    def _trained(self) -> dict[str, Tensor]:
        """The tensors that are trained: what stands behind a form, or what has none yet."""
        found = {}
        for name, (module, own) in self.places.items():
            if parametrize.is_parametrized(module, own):
                lists: Any = module.parametrizations
                found[name] = lists[own].original
            else:
                found[name] = getattr(module, own)
        return found


class Joint(Compressed):
    """weight = what the scheme of a `JointGroup` makes of this tensor together with the others;
    gradients go straight through, to what the mask keeps."""

    mask: Tensor

    def __init__(self, group: JointGroup, name: str, *, interval: int = 50) -> None:
        super().__init__()
        module, own = group.places[name]
        self.group, self.name = group, name
        self.register_buffer("mask", torch.ones(getattr(module, own).shape, dtype=torch.bool))
        self._counted = CountedBits(interval)

    def fit(self, original: Tensor) -> None:
        """Chooses the masks of all tensors of the group anew."""
        self.group.fit_masks()
        for form in self.group.forms.values():
            form._counted.forget()

    def training_weight(self, original: Tensor) -> Tensor:
        kept = torch.where(self.mask, original, torch.zeros_like(original))
        if self.group.scheme is None:
            return kept
        return straight_through(kept, self._decoded(original))

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return self.training_weight(original)

    @torch.compiler.disable
    def _decoded(self, original: Tensor) -> Tensor:
        return as_tensor(self.parameters_of(original).decode(), original)

    def parameters_of(self, original: Tensor) -> Parameters:
        return self.group.parameters(self.name, original)

    @torch.compiler.disable
    def rate(self, original: Tensor) -> Tensor:
        """A number, without gradients; what the tensors share is counted with each."""
        bits = self._counted.count(self.parameters_of(original), self.training)
        return torch.tensor(bits, device=original.device)


def joint_forms(
    scheme: Scheme,
    shared: Collection[type],
    places: Places,
    channel_axes: Mapping[str, int] | None = None,
) -> dict[str, Compressed]:
    """The forms of tensors that share stages, to be attached to them; then `Compressed.fit` of one
    chooses masks, where there are any. Low rank under one budget becomes two trained factors of
    each tensor.

    Raises:
        SchemeError: no weights can share these stages, or not while they are trained.
    """
    if not isinstance(scheme, LowRank):
        group = JointGroup(scheme, shared, places, channel_axes)
        return dict(group.forms)
    if set(shared) != {LowRank}:
        raise SchemeError("joint: behind shared ranks nothing else can be shared in training")
    arrays = {name: as_array(getattr(module, own)) for name, (module, own) in places.items()}
    fitted = fit_jointly(replace(scheme, inner=Lossless()), shared, arrays)
    forms: dict[str, Compressed] = {}
    for name, parameters in fitted.items():
        rank = parameters.rank if isinstance(parameters, LowRankParameters) else 1
        forms[name] = combined.Factored(
            arrays[name].shape, max(rank, 1), inner=scheme.inner, reshape=scheme.reshape
        )
    return forms
