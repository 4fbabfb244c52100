# SPDX-License-Identifier: Apache-2.0
"""Matching of intermediate features of a student with those of a teacher (Romero et al. 2015,
"FitNets: hints for thin deep nets", section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from toolkit.errors import InputError
from toolkit.train.tensor_loader import move

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class FeatureMatching:
    """Squared differences of features, each relative to the mean square of the teacher's.

    Where numbers of channels differ, a learned linear map (a convolution of size 1) takes the
    student's to the teacher's; where heights and widths differ, the teacher's are averaged to the
    student's.

    Args:
        pairs: Names of modules, student's -> teacher's.
        weight: What the mean over pairs counts.
    """

    def __init__(self, pairs: Mapping[str, str], weight: float = 1.0) -> None:
        if not 0 < weight < float("inf"):
            raise InputError(f"features: weight: expected above 0, found {weight}")
        self.pairs, self.weight = dict(pairs), weight
        self._seen: dict[str, dict[str, torch.Tensor]] = {"student": {}, "teacher": {}}
        self._adapters = nn.ModuleDict()

    def prepare(self, trainer: Trainer, teacher: nn.Module) -> nn.Module:
        """Watches the modules, and makes the maps from one sample; returns what is to be trained.

        Raises InputError for a module that does not exist or features that cannot be matched.
        """
        for side, model, names in (
            ("student", trainer.model, list(self.pairs)),
            ("teacher", teacher, list(self.pairs.values())),
        ):
            known = dict(model.named_modules())
            for name in names:
                if name not in known:
                    raise InputError(f"features: the {side} has no module {name!r}")
                known[name].register_forward_hook(self._watch(side, name))
        batch, _ = next(iter(trainer.task.train.batches(0)))
        with torch.no_grad():
            for model in (trainer.model, teacher):
                was_training = model.training
                model.eval()
                trainer.task.outputs(model, move(batch, trainer.device))
                model.train(was_training)
        for place, (mine, theirs) in enumerate(self.pairs.items()):
            found, told = self._seen["student"][mine], self._seen["teacher"][theirs]
            if found.ndim != told.ndim or found.ndim not in (2, 3, 4):
                raise InputError(
                    f"features: {mine} gives {list(found.shape)}, {theirs} {list(told.shape)}"
                )
            axis = 1 if found.ndim == 4 else -1
            here, there = found.shape[axis], told.shape[axis]
            if here != there:
                adapter: nn.Module = (
                    nn.Conv2d(here, there, 1) if found.ndim == 4 else nn.Linear(here, there)
                )
                self._adapters[str(place)] = adapter.to(trainer.device)
        return self._adapters

    def _watch(self, side: str, name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self._seen[side][name] = output

        return note

    def loss(self) -> torch.Tensor:
        """Of the features that the last forward passes of both have left."""
        total: Any = 0.0
        for place, (mine, theirs) in enumerate(self.pairs.items()):
            found = self._seen["student"][mine].float()
            told = self._seen["teacher"][theirs].detach().float()
            if str(place) in self._adapters:
                found = self._adapters[str(place)](found).float()
            if found.ndim == 4 and found.shape[2:] != told.shape[2:]:
                told = functional.adaptive_avg_pool2d(told, found.shape[2:])
            scale = told.square().mean().clamp(min=1e-12)
            total = total + (found - told).square().mean() / scale
        loss: torch.Tensor = self.weight * total / len(self.pairs)
        return loss
