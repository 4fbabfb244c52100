# SPDX-License-Identifier: Apache-2.0
"""Shared values that are trained: weights are tied to the centroids of their clusters.

Han, Mao, Dally 2016, "Deep Compression", section 3.3: the gradient of a centroid is the sum of
those of its members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from passes.errors import SchemeError
from passes.schemes import Codebook, CodebookParameters, FitContext
from toolkit.errors import InputError
from toolkit.train.callback import Callback
from toolkit.train.weight_arrays import array_of, channel_axes, matched, parameter_of, put

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class TrainedCodebooks(Callback):
    """Ties parameters to codebooks from a point of time on, and trains the codebooks.

    Zeros stay exactly zero where the scheme says ``fix_zeros`` or where a tenth of the weights is
    zero already, as after pruning.

    Args:
        rules: Glob pattern of parameter names -> codebook; the first that matches counts.
        start: The epoch at which weights are tied.
        gradient: ``sum``: centroids learn by the sum of their members' gradients, the derivative;
            ``mean``: by the mean, which suits learning rates that were chosen for single weights.
        update_labels: Members learn alone, take the nearest centroid after each step, and centroids
            become the means of their members; goes with ``mean``.

    Raises:
        InputError: no rules, or ``update_labels`` with ``sum``.
    """

    def __init__(
        self,
        rules: Mapping[str, Codebook],
        start: float = 0.0,
        *,
        gradient: Literal["sum", "mean"] = "sum",
        update_labels: bool = False,
    ) -> None:
        if not rules:
            raise InputError("codebooks: give rules")
        if gradient not in ("sum", "mean"):
            raise InputError(f"codebooks: gradient: expected sum or mean, found {gradient!r}")
        if update_labels and gradient == "sum":
            raise InputError("codebooks: update_labels goes with gradient mean")
        self.rules, self.start = dict(rules), float(start)
        self.gradient, self.update_labels = gradient, update_labels
        self.labels: dict[str, torch.Tensor] = {}
        self.zeros: dict[str, int] = {}
        self._members: dict[str, _Members] = {}
        self._assigned: dict[str, Codebook] = {}

    def on_start(self, trainer: Trainer) -> None:
        """Finds the parameters."""
        self._assigned = matched("codebooks", self.rules, trainer.model)
        if self.start >= trainer.settings.epochs:
            raise InputError(
                f"codebooks: they begin at epoch {self.start:g} of {trainer.settings.epochs}"
            )

    @property
    def is_begun(self) -> bool:
        """Whether weights are tied."""
        return bool(self.labels)

    def before_forward(self, trainer: Trainer) -> None:
        """Ties the weights when it is time; the optimizer then begins anew, so that all members of
        a cluster move alike."""
        if not self.is_begun and trainer.step >= round(self.start * trainer.steps_per_epoch):
            self.tie(trainer.model)
            trainer.reset_optimizer()

    def tie(self, model: nn.Module) -> None:
        """Fits the codebooks to the weights as they are."""
        axes = channel_axes(model)
        for name, scheme in self._assigned.items():
            parameter = parameter_of(model, name)
            array = array_of(parameter)
            kept = array != 0
            zeros = scheme.fix_zeros or kept.mean() < 0.9
            scheme = replace(scheme, fix_zeros=zeros)
            context = FitContext(channel_axis=axes[name], mask=kept if zeros else None)
            try:
                fitted = scheme.fit(array, context)
            except SchemeError as error:
                raise InputError(f"codebooks: {name}: {error}") from error
            indices = fitted.symbols.astype("int64") + fitted.offset
            self.labels[name] = torch.from_numpy(indices).to(parameter.device)
            at = [i for i, value in enumerate(fitted.codebook.tolist()) if value == 0 and zeros]
            self.zeros[name] = at[0] if at else -1
            put(parameter, fitted.decode())

    def after_backward(self, trainer: Trainer) -> None:
        """Gives each member the gradient of its centroid; zero's is none."""
        for name, labels in self.labels.items():
            gradient = parameter_of(trainer.model, name).grad
            if gradient is None:
                continue
            if self.update_labels:
                gradient.mul_(labels != self.zeros[name])
                continue
            if name not in self._members:
                self._members[name] = _Members.of(labels, self.zeros[name])
            gradient.copy_(self._members[name].shared(gradient, self.gradient == "mean"))

    def after_step(self, trainer: Trainer) -> None:
        """New labels and means, where labels are updated."""
        if self.update_labels:
            with torch.no_grad():
                self._update_labels(trainer.model)

    def _update_labels(self, model: nn.Module) -> None:
        for name, labels in self.labels.items():
            weight = parameter_of(model, name)
            zero = self.zeros[name]
            sums, counts = _pooled(weight, labels)
            centroids = sums / counts
            is_zero = labels == zero
            present = torch.bincount(labels.flatten(), minlength=len(centroids)) > 0
            if zero >= 0:
                present[zero] = False
            places = present.nonzero().flatten()
            ordered, order = centroids[places].sort()
            middles = (ordered[1:] + ordered[:-1]) / 2
            new = places[order[torch.bucketize(weight, middles)]]
            labels.copy_(torch.where(is_zero, labels, new))
            sums, counts = _pooled(weight, labels)
            weight.copy_(torch.where(is_zero, weight, (sums / counts)[labels]))

    def is_selectable(self, trainer: Trainer) -> bool:
        """Once weights are tied."""
        return self.is_begun

    def fitted(self, model: nn.Module) -> dict[str, CodebookParameters]:
        """Name -> the codebook and labels of the weights as they are."""
        found = {}
        for name, scheme in self._assigned.items():
            array = array_of(parameter_of(model, name))
            entries = max(scheme.entries, len(set(array.reshape(-1).tolist())))
            mask = array != 0 if self.zeros.get(name, -1) >= 0 else None
            found[name] = replace(scheme, entries=entries).fit(array, FitContext(mask=mask))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Labels and the place of zero."""
        return {"labels": dict(self.labels), "zeros": dict(self.zeros)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.labels, self.zeros = state["labels"], state["zeros"]
        self._members = {}


@dataclass(frozen=True)
class _Members:
    """The weights that have a centroid which learns, most being zero after pruning.

    Attributes:
        places: int64 [members], in the flat weight.
        labels: int64 [members].
        counts: float32 [clusters], 1 for none.
    """

    places: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def of(cls, labels: torch.Tensor, zero: int) -> _Members:
        """All but those whose label is ``zero``."""
        flat = labels.flatten()
        places = (flat != zero).nonzero().flatten()
        counts = torch.bincount(flat[places], minlength=int(flat.max()) + 1).clamp(min=1)
        return cls(places, flat[places], counts.float())

    def shared(self, gradient: torch.Tensor, mean: bool) -> torch.Tensor:
        """The sum (or mean) of the gradient over each cluster, for each of its members."""
        pooled = torch.zeros_like(self.counts, dtype=gradient.dtype)
        pooled.index_add_(0, self.labels, gradient.flatten()[self.places])
        if mean:
            pooled /= self.counts
        found = torch.zeros_like(gradient).flatten()
        found[self.places] = pooled[self.labels]
        return found.view(gradient.shape)


def _pooled(values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of ``values`` over the members of each cluster, and their numbers (1 for none)."""
    flat = labels.flatten()
    count = int(flat.max()) + 1
    sums = torch.zeros(count, dtype=values.dtype, device=values.device)
    sums.index_add_(0, flat, values.flatten())
    numbers = torch.bincount(flat, minlength=count).clamp(min=1).to(values.dtype)
    return sums, numbers
