# SPDX-License-Identifier: Apache-2.0
"""Staged pruning, trained codebooks, and both together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from passes.schemes import Codebook, Prune, PruneParameters
from tests.train_tasks import Bowl, bowl_task, digits_net, digits_task
from toolkit.errors import InputError
from toolkit.train import Callback, DeepCompression, StagedPruning, TrainedCodebooks, Trainer

OPTIONS: dict[str, Any] = {"optimizer": {"rate": 0.1}, "progress": False}


class Watch(Callback):
    """Notes the zeros of a weight after each step."""

    def __init__(self, name: str) -> None:
        self.watched, self.zeros = name, list[np.ndarray]()

    def after_step(self, trainer: Trainer) -> None:
        weight = trainer.model.get_parameter(self.watched)
        self.zeros.append((weight == 0).numpy().copy())


def test_stages_prune_more_and_more_and_what_is_pruned_stays() -> None:
    pruning = StagedPruning(
        {"1.weight": Prune(sparsity=(0.5, 0.8, 0.9)), "3.*": Prune(fraction=0.5)}, (1, 2, 3.5)
    )
    watch = Watch("1.weight")
    options = {**OPTIONS, "optimizer": {"rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4}}
    trainer = Trainer(digits_net(), digits_task(), [pruning, watch], epochs=8, **options)
    result = trainer.fit()
    shares = [zeros.mean() for zeros in watch.zeros]
    assert shares[19] == 0 and shares[20] == 0.5 and shares[39] == 0.5
    assert shares[40] == shares[69] == pytest.approx(0.8, abs=1e-3)
    assert shares[70] == pytest.approx(0.9, abs=1e-3)
    for before, after in zip(watch.zeros, watch.zeros[1:], strict=False):
        assert not (before & ~after).any()
    assert result.best is not None and result.best.epoch >= 4  # only the last stage counts
    weight = trainer.model[1].weight.detach().numpy()
    assert (weight == 0).mean() == pytest.approx(0.9, abs=1e-3)
    assert (trainer.model[1].bias != 0).all() and (trainer.model[3].bias == 0).sum() == 5
    assert trainer.validate().metric > 0.8


def test_filters_go_as_a_whole_and_a_budget_may_be_shared() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )
    rules = {"0.weight": Prune(sparsity=0.5, granularity="filter", importance="l1")}
    Trainer(net, digits_task(), [StagedPruning(rules)], epochs=1, **OPTIONS).fit()
    whole = (net[0].weight == 0).flatten(1)
    assert whole.all(1).sum() == 4 and whole.any(1).sum() == 4
    shared = digits_net()
    with torch.no_grad():
        shared[3].weight.mul_(10)
    pruning = StagedPruning({"*.weight": Prune(sparsity=0.5)}, joint=True)
    Trainer(shared, digits_task(), [pruning], epochs=1, **OPTIONS).fit()
    assert (shared[3].weight == 0).float().mean() < 0.1
    counts = [(p == 0).sum().item() for p in (shared[1].weight, shared[3].weight)]
    assert sum(counts) == (64 * 32 + 320) // 2


@pytest.mark.parametrize(
    ("rules", "starts", "words"),
    [
        ({"nothing": Prune(sparsity=0.5)}, (0,), "'nothing' matches no parameter"),
        ({"*": Prune(sparsity=0.5), "1.*": Prune(sparsity=0.5)}, (0,), "'1.\\*' matches no"),
        ({"*": Prune(sparsity=(0.1, 0.2))}, (0,), "2 sparsities for 1 stages"),
        ({"*": Prune(sparsity=0.1)}, (2, 1), "one after another"),
        ({"*": Prune(sparsity=0.1)}, (3,), "begins at epoch 3 of 2"),
        ({"1.bias": Prune(sparsity=0.1, granularity="kernel")}, (0,), "1.bias: .*no kernels"),
    ],
)
def test_wrong_rules(rules: dict[str, Prune], starts: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Trainer(
            digits_net(), digits_task(), [StagedPruning(rules, starts)], epochs=2, **OPTIONS
        ).fit()


@pytest.mark.parametrize("gradient", ["sum", "mean"])
def test_a_centroid_learns_by_the_gradients_of_its_members(gradient: Any) -> None:
    """One step on a bowl against the derivative of the loss as a function of the centroids."""
    start, target = [1.0, 1.1, 1.2, -2.0, -2.2, 0.0], [2.0, 0.0, 1.0, -1.0, -3.0, 5.0]
    model = Bowl(start, target)
    books = TrainedCodebooks({"weight": Codebook(entries=3, fix_zeros=True)}, gradient=gradient)
    options = {"optimizer": {"rate": 0.1, "momentum": 0.0}, "progress": False}
    Trainer(model, bowl_task(1), [books], epochs=1, **options).fit()

    centroids = torch.tensor([1.1, -2.1], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 0, 1, 1])
    loss = 0.5 * (centroids[labels] - torch.tensor(target[:5], dtype=torch.float64)).square().sum()
    (slope,) = torch.autograd.grad(loss, centroids)
    slope = slope if gradient == "sum" else slope / torch.tensor([3.0, 2.0])
    expected = (centroids - 0.1 * slope).detach()[labels].tolist() + [0.0]
    np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-5)


def test_labels_follow_where_they_are_updated() -> None:
    """A member whose own gradient carries it to the other centroid changes sides."""
    model = Bowl([1.0, 1.0, 1.0, 2.0, 2.0], [0.5, 0.5, 2.4, 2.4, 2.4])
    books = TrainedCodebooks({"weight": Codebook(entries=2)}, gradient="mean", update_labels=True)
    options = {"optimizer": {"rate": 0.6, "momentum": 0.0}, "progress": False}
    Trainer(model, bowl_task(10), [books], epochs=3, **options).fit()
    np.testing.assert_allclose(model.weight.detach().numpy(), [0.5, 0.5, 2.4, 2.4, 2.4], atol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("update_labels", [False, True])
def test_deep_compression_ends_in_few_values_and_zeros(optimizer: str, update_labels: bool) -> None:
    method = DeepCompression(
        {"*.weight": Prune(sparsity=(0.5, 0.8))},
        (2, 4),
        {"*.weight": Codebook(entries=16)},
        6,
        update_labels=update_labels,
    )
    options = {"optimizer": {"name": optimizer, "rate": 0.02 if optimizer == "adam" else 0.1}}
    trainer = Trainer(digits_net(), digits_task(), [method], epochs=9, progress=False, **options)
    assert trainer.fit().metric > 0.85
    fitted = method.parameters()
    assert set(fitted) == {"1.weight", "3.weight"}
    for name, parameters in fitted.items():
        weight = trainer.model.get_parameter(name).detach().numpy()
        assert isinstance(parameters, PruneParameters)
        np.testing.assert_array_equal(parameters.decode(), weight)
        assert len(np.unique(weight)) <= 16
        assert (weight == 0).mean() >= 0.8 - 1e-3


def test_deep_compression_resumes_bit_for_bit(tmp_path: Path) -> None:
    def trainer(folder: Path | None, stop: int | None = None) -> Trainer:
        method = DeepCompression(
            {"*.weight": Prune(sparsity=(0.5, 0.8))}, (1, 2), {"*.weight": Codebook(entries=8)}, 3
        )
        if stop is not None:
            step = method.after_step

            def stopping(trainer: Trainer) -> None:
                step(trainer)
                if trainer.step == stop:
                    raise KeyboardInterrupt

            method.after_step = stopping  # type: ignore[method-assign]
        return Trainer(
            digits_net(),
            digits_task(),
            [method],
            epochs=4,
            checkpoint_every=1,
            folder=folder,
            **OPTIONS,
        )

    whole = trainer(None)
    expected = whole.fit()
    for stop in (25, 66):
        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path / str(stop), stop).fit()
        again = trainer(tmp_path / str(stop))
        assert again.fit(resume=True).history == expected.history
        for first, second in zip(whole.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(first, second)
