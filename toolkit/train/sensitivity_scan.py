# SPDX-License-Identifier: Apache-2.0
"""How much each parameter can be pruned alone, and the sparsities and the rules that follow.

Han, Pool, Tran, Dally 2015, "Learning both weights and connections for efficient neural networks",
section 4.3 and Fig. 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn

from passes.errors import SchemeError
from passes.schemes import FitContext, Prune, sparsities_for_total
from toolkit.errors import InputError
from toolkit.output_file import write_text
from toolkit.train.task import Task
from toolkit.train.tensor_loader import Loader
from toolkit.train.weight_arrays import array_of, channel_axes, matched, parameter_of, put


@dataclass(frozen=True)
class Sensitivity:
    """Curves of a scan.

    Attributes:
        curves: Parameter name -> (sparsity, rise of the mean loss), the first being (0, 0).
        metrics: The same with the metric itself.
        sizes: Parameter name -> number of elements.
        rules: Parameter name -> how it was pruned; the sparsity is each point's own.
    """

    curves: dict[str, list[tuple[float, float]]]
    metrics: dict[str, list[tuple[float, float]]]
    sizes: dict[str, int]
    rules: dict[str, Prune]

    def sparsities(self, total: float) -> dict[str, float]:
        """Sparsity of each parameter such that the share ``total`` of all elements goes at the
        least sum of losses. Raises InputError where the scan does not reach it."""
        try:
            return sparsities_for_total(self.curves, self.sizes, total)
        except SchemeError as error:
            raise InputError(str(error)) from error

    def prune_rules(self, total: float, stages: int = 1) -> dict[str, Prune]:
        """Rules for `StagedPruning`: with several stages the kept share falls in equal ratios."""
        found = {}
        for name, sparsity in self.sparsities(total).items():
            steps = [1 - (1 - sparsity) ** ((k + 1) / stages) for k in range(stages)]
            value = tuple(min(step, 1.0) for step in steps) if stages > 1 else sparsity
            found[name] = _pruning(self.rules[name], value)
        return found

    def write_rules(self, path: str | Path, total: float) -> None:
        """Writes them as a recipe of `toolkit compress`, to be edited. Raises OutputError."""
        rules = []
        for name, sparsity in self.sparsities(total).items():
            options: dict[str, object] = {"sparsity": round(sparsity, 6)}
            if self.rules[name].granularity != "element":
                options["granularity"] = self.rules[name].granularity
            settings = {"stages": [{"prune": options}]}
            rules.append({"match": name, "settings": settings})
        recipe = {"version": 1, "rules": rules, "default": {"scheme": "lossless"}}
        write_text(Path(path), yaml.safe_dump(recipe, sort_keys=False))


def scan_sensitivity(
    model: nn.Module,
    task: Task,
    data: Loader,
    rules: Mapping[str, Prune] | None = None,
    sparsities: Sequence[float] = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98),
) -> Sensitivity:
    """Prunes one parameter at a time and measures.

    Args:
        model: Is left as it was.
        task: Its loss and metric.
        data: Validation data, or a part of the training data.
        rules: Glob pattern of parameter names -> granularity and importance (its amount does not
            count); None for single elements of all tensors of two or more dimensions.
        sparsities: Shares to try, above 0.

    Raises:
        InputError: a pattern that matches nothing, a sparsity outside of 0 to 1.
    """
    if not sparsities or not all(0 < s <= 1 for s in sparsities):
        raise InputError(f"scan: sparsities must lie above 0 and up to 1, not {sparsities}")
    given = rules or {
        name: Prune(sparsity=0.5) for name, value in model.named_parameters() if value.ndim > 1
    }
    device = next(model.parameters()).device
    before = task.evaluate(model, data, device)
    axes, curves, metrics, sizes = channel_axes(model), {}, {}, {}
    found = matched("scan", given, model)
    for name, rule in found.items():
        weight = parameter_of(model, name)
        kept, array = weight.detach().clone(), array_of(weight)
        curves[name], metrics[name] = [(0.0, 0.0)], [(0.0, before.metric)]
        for sparsity in sparsities:
            amount = _pruning(rule, sparsity)
            try:
                fitted = amount.fit(array, FitContext(channel_axis=axes[name]))
            except SchemeError as error:
                raise InputError(f"scan: {name}: {error}") from error
            put(weight, fitted.decode())
            after = task.evaluate(model, data, device)
            curves[name].append((sparsity, after.loss - before.loss))
            metrics[name].append((sparsity, after.metric))
        with torch.no_grad():
            weight.copy_(kept)
        sizes[name] = weight.numel()
    return Sensitivity(curves, metrics, sizes, found)


def _pruning(rule: Prune, sparsity: float | tuple[float, ...]) -> Prune:
    """Groups and importance of a rule with another amount."""
    return Prune(
        sparsity=sparsity,
        granularity=rule.granularity,
        block=rule.block,
        importance=rule.importance,
    )
