# SPDX-License-Identifier: Apache-2.0
"""Pruning in stages with training between them, masks applied after every step.

Han, Pool, Tran, Dally 2015, "Learning both weights and connections for efficient neural networks",
section 3 (train, prune, retrain, repeated).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from passes.errors import SchemeError
from passes.schemes import FitContext, Prune, prune_jointly
from toolkit.errors import InputError
from toolkit.train.callback import Callback
from toolkit.train.weight_arrays import array_of, channel_axes, matched, parameter_of

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class StagedPruning(Callback):
    """Prunes parameters at the beginning of each stage; what is pruned stays zero.

    Args:
        rules: Glob pattern of parameter names -> how to prune; the first that matches counts. A
            scheme with a list of sparsities has one for each stage, others prune alike in each.
        starts: Epochs (also fractions of them) at which the stages begin, ascending.
        joint: Whether the parameters of a rule share its amount.

    Raises:
        InputError: no rules, stages that are not in order, or a list of another length than the
            stages'.
    """

    def __init__(
        self,
        rules: Mapping[str, Prune],
        starts: Sequence[float] = (0.0,),
        *,
        joint: bool = False,
    ) -> None:
        self.rules, self.starts, self.joint = dict(rules), tuple(map(float, starts)), joint
        if not self.rules or not self.starts:
            raise InputError("pruning: give rules and the epochs at which stages begin")
        if list(self.starts) != sorted(set(self.starts)) or self.starts[0] < 0:
            raise InputError(f"pruning: stages must begin one after another, not at {self.starts}")
        for pattern, rule in self.rules.items():
            if isinstance(rule.sparsity, tuple) and len(rule.sparsity) != len(self.starts):
                raise InputError(
                    f"pruning: {pattern!r} has {len(rule.sparsity)} sparsities for "
                    f"{len(self.starts)} stages"
                )
        self.stage = 0
        self.masks: dict[str, torch.Tensor] = {}
        self._assigned: dict[str, Prune] = {}

    def on_start(self, trainer: Trainer) -> None:
        """Finds the parameters. Raises InputError for stages that begin after the end."""
        self._assigned = matched("pruning", self.rules, trainer.model)
        if self.starts[-1] >= trainer.settings.epochs:
            raise InputError(
                f"pruning: the last stage begins at epoch {self.starts[-1]:g} of "
                f"{trainer.settings.epochs}"
            )

    def before_forward(self, trainer: Trainer) -> None:
        """Prunes where a stage begins."""
        while self.stage < len(self.starts):
            if trainer.step < round(self.starts[self.stage] * trainer.steps_per_epoch):
                return
            self.prune(trainer.model, self.stage)
            self.stage += 1

    def prune(self, model: torch.nn.Module, stage: int) -> None:
        """Finds the masks of a stage from the weights as they are, and applies them."""
        axes = channel_axes(model)
        groups: dict[int, list[str]] = {}
        for place, (name, rule) in enumerate(self._assigned.items()):
            groups.setdefault(id(rule) if self.joint else place, []).append(name)
        for names in groups.values():
            rule = self._assigned[names[0]]
            rule = rule.at_stage(stage) if isinstance(rule.sparsity, tuple) else rule
            arrays = {name: array_of(parameter_of(model, name)) for name in names}
            contexts = {
                name: FitContext(
                    channel_axis=axes[name],
                    mask=array_of(self.masks[name]) if name in self.masks else None,
                )
                for name in names
            }
            try:
                fitted = prune_jointly(arrays, rule, contexts)
            except SchemeError as error:
                raise InputError(f"pruning: {error}") from error
            for name in names:
                mask = torch.from_numpy(fitted[name].mask.copy())
                self.masks[name] = mask.to(parameter_of(model, name).device)
        self.apply(model)

    def apply(self, model: torch.nn.Module) -> None:
        """Sets to zero what is pruned."""
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameter_of(model, name).mul_(mask)

    def after_step(self, trainer: Trainer) -> None:
        """Keeps what is pruned at zero."""
        self.apply(trainer.model)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Logs the share of zeros among the parameters of the rules."""
        counts = [(int(mask.sum()), mask.numel()) for mask in self.masks.values()]
        if counts:
            record["sparsity"] = 1 - sum(k for k, _ in counts) / sum(n for _, n in counts)

    def is_selectable(self, trainer: Trainer) -> bool:
        """In the last stage."""
        return self.stage == len(self.starts)

    def state_dict(self) -> dict[str, Any]:
        """The stage and the masks."""
        return {"stage": self.stage, "masks": dict(self.masks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.stage, self.masks = state["stage"], state["masks"]
