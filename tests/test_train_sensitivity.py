# SPDX-License-Identifier: Apache-2.0
"""The sensitivity scan: what it measures, and that its sparsities train well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from passes import Recipe
from passes.schemes import Prune
from tests.train_tasks import digits_net, digits_task
from toolkit.errors import InputError
from toolkit.train import StagedPruning, Trainer, scan_sensitivity


def test_a_scan_gives_rules_that_reach_the_total(tmp_path: Path) -> None:
    net, task = digits_net(), digits_task()
    Trainer(net, task, epochs=8, optimizer={"rate": 0.1}, progress=False).fit()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = scan_sensitivity(net, task, task.validation)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert set(found.curves) == {"1.weight", "3.weight"}

    with torch.no_grad():  # one point by hand
        net[1].weight.mul_(torch.from_numpy(Prune(sparsity=0.9).fit(net[1].weight.numpy()).mask))
    loss = task.evaluate(net, task.validation).loss
    net.load_state_dict(before)
    clean = task.evaluate(net, task.validation).loss
    assert dict(found.curves["1.weight"])[0.9] == pytest.approx(loss - clean)

    shares = found.sparsities(0.85)
    total = sum(found.sizes[name] * share for name, share in shares.items())
    assert total == pytest.approx(0.85 * (2048 + 320), rel=1e-6)
    rules = found.prune_rules(0.85, stages=2)
    pruning = StagedPruning(rules, (0, 1))
    trainer = Trainer(net, task, [pruning], epochs=5, optimizer={"rate": 0.05}, progress=False)
    assert trainer.fit().metric > 0.85
    zeros = sum(int((net[i].weight == 0).sum()) for i in (1, 3))
    assert zeros / (2048 + 320) == pytest.approx(0.85, abs=0.002)

    found.write_rules(tmp_path / "rules.yaml", 0.85)
    recipe = Recipe.read(tmp_path / "rules.yaml")
    assert [rule.match for rule in recipe.rules] == ["1.weight", "3.weight"]


def test_wrong_options() -> None:
    task = digits_task()
    with pytest.raises(InputError, match="sparsities must lie above 0"):
        scan_sensitivity(digits_net(), task, task.validation, sparsities=(0.0,))
    with pytest.raises(InputError, match="'x' matches no parameter"):
        scan_sensitivity(digits_net(), task, task.validation, {"x": Prune(sparsity=0.5)})
    found = scan_sensitivity(digits_net(), task, task.validation, sparsities=(0.5,))
    with pytest.raises(InputError, match="0.9 of all elements"):
        found.sparsities(0.9)
