# SPDX-License-Identifier: Apache-2.0
"""LC on bowls whose constrained minimum is known, and on digits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from passes.schemes import (
    Binary,
    Codebook,
    CodebookParameters,
    LowRank,
    LowRankParameters,
    Prune,
    PruneParameters,
    RateAware,
    Scheme,
    Sum,
    SumParameters,
)
from tests.train_tasks import Bowl, bowl_task, digits_net, digits_task
from toolkit.errors import InputError
from toolkit.train import LC, Compression, Trainer

PLAIN: dict[str, Any] = {"optimizer": {"rate": 0.1, "momentum": 0.0}, "progress": False}


def solved(
    scheme: Scheme,
    target: Sequence[float],
    curvature: Sequence[float],
    *,
    mu: float = 0.05,
    growth: float = 1.1,
    multipliers: bool = True,
) -> np.ndarray:
    """Where LC ends from the unconstrained minimum."""
    model = Bowl(target, target, curvature)
    method = LC({"weight": scheme}, mu=mu, growth=growth, steps=80, multipliers=multipliers)
    Trainer(model, bowl_task(40), [method], epochs=80, select="last", **PLAIN).fit()
    weight = model.weight.detach().numpy()
    np.testing.assert_array_equal(weight, method.parameters()["weight"].decode())
    return weight


def loss(weight: np.ndarray, target: Sequence[float], curvature: Sequence[float]) -> float:
    return float((np.asarray(curvature) * (weight - np.asarray(target)) ** 2).sum() / 2)


def test_pruning_finds_the_weights_that_the_loss_needs() -> None:
    """Direct compression keeps the largest; the minimum keeps the largest a * t^2."""
    target, curvature = [1.0, -0.9, 0.5, 0.4, -0.2], [0.05, 0.05, 2.0, 4.0, 3.0]
    scheme = Prune(keep=2)
    best = min(
        (loss(np.where(np.isin(range(5), kept), target, 0), target, curvature), kept)
        for kept in combinations(range(5), 2)
    )
    assert best[1] == (2, 3)
    direct = scheme.fit(np.array(target, np.float32)).decode()
    assert set(np.flatnonzero(direct)) == {0, 1}
    found = solved(scheme, target, curvature)
    assert tuple(np.flatnonzero(found)) == best[1]
    assert loss(found, target, curvature) == pytest.approx(best[0], rel=1e-3)


@pytest.mark.parametrize("multipliers", [True, False])
def test_scaled_binary_ends_at_the_best_scale(multipliers: bool) -> None:
    """c minimises sum a (s c - t)^2: the mean of |t| weighted by the curvature, which direct
    compression does not know."""
    target, curvature = [1.0, -2.0, 3.0, -0.5], [4.0, 1.0, 0.25, 2.0]
    signs = np.sign(target)
    scale = np.dot(curvature, np.abs(target)) / np.sum(curvature)
    growth = 1.1 if multipliers else 1.15
    found = solved(Binary(), target, curvature, growth=growth, multipliers=multipliers)
    np.testing.assert_allclose(found, signs * scale, rtol=1e-3 if multipliers else 0.05)


def test_a_codebook_ends_at_the_best_of_all_clusterings() -> None:
    target, curvature = [1.0, 1.2, 2.0, 2.1, 5.0], [1.0, 0.5, 4.0, 1.0, 0.3]

    def best_for(labels: tuple[int, ...]) -> float:
        found = np.zeros(5)
        for label in set(labels):
            mine = np.array(labels) == label
            found[mine] = np.average(np.array(target)[mine], weights=np.array(curvature)[mine])
        return loss(found, target, curvature)

    least = min(best_for(labels) for labels in product(range(2), repeat=5))
    found = solved(Codebook(entries=2), target, curvature)
    assert len(np.unique(found)) == 2
    assert loss(found, target, curvature) == pytest.approx(least, rel=0.01)


def test_multipliers_meet_the_constraint_at_a_smaller_mu() -> None:
    target, curvature = [1.0, -2.0, 3.0, -0.5], [4.0, 1.0, 0.25, 2.0]
    distances = []
    for multipliers in (True, False):
        model = Bowl(target, target, curvature)
        method = LC({"weight": Binary()}, mu=5.0, growth=1.0, steps=40, multipliers=multipliers)
        result = Trainer(model, bowl_task(40), [method], epochs=40, **PLAIN).fit()
        distances.append(result.history[-1]["distance"])
    assert distances[0] < 1e-3 < 0.1 < distances[1]


def test_mu_and_the_cap_on_the_learning_rate() -> None:
    model = Bowl([1.0, 2.0], [1.0, 2.0])
    method = LC({"weight": Codebook(entries=1)}, mu=1.0, growth=2.0, steps=5)
    options = {**PLAIN, "optimizer": {"rate": 0.5, "momentum": 0.0}}
    history = Trainer(model, bowl_task(4), [method], epochs=5, **options).fit().history
    assert [record["mu"] for record in history] == [2.0, 4.0, 8.0, 16.0, 16.0]
    assert [record["rate"] for record in history] == [0.5, 0.5, 0.25, 0.125, 0.0625]


def test_penalties_choose_sparsity_and_rank() -> None:
    """Bowls with curvature 1: the minimum of loss + penalty keeps what is worth its price."""
    values = np.array([3.0, 1.5, 0.5, 0.1, -0.9], np.float32)
    found = solved(Prune(l0_penalty=0.5), values.tolist(), [1.0] * 5)
    np.testing.assert_allclose(found, np.where(values**2 / 2 > 0.5, values, 0), atol=1e-2)

    generator = np.random.default_rng(0)
    u, _ = np.linalg.qr(generator.normal(size=(8, 8)))
    v, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    spectrum = np.array([4.0, 2.0, 1.0, 0.3, 0.2, 0.1])
    matrix = (u[:, :6] * spectrum) @ v
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 8, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(matrix))
    model = MatrixBowl(layer, torch.from_numpy(matrix.astype(np.float32)))
    alpha = 0.4 / (6 + 8)  # a rank costs 0.4, its loss is s^2 / 2: 2 and 1 stay, 0.3 goes
    method = LC({"layer.weight": LowRank(alpha=alpha)}, mu=0.05, growth=1.1, steps=60)
    Trainer(model, bowl_task(20), [method], epochs=60, **PLAIN).fit()
    fitted = method.parameters()["layer.weight"]
    assert isinstance(fitted, LowRankParameters) and fitted.rank == 3


class MatrixBowl(torch.nn.Module):
    """A layer whose loss is the squared distance of its weight from a matrix, halved."""

    def __init__(self, layer: torch.nn.Linear, target: torch.Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("target", target)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return (0.5 * (self.layer.weight - self.target).square().sum()).expand(len(batch))


def trained(rules: dict[str, Any], folder: Path | None = None, **options: Any) -> Trainer:
    net = digits_net()
    Trainer(net, digits_task(), epochs=6, optimizer={"rate": 0.1}, progress=False).fit()
    settings = {"mu": 0.01, "growth": 1.25, "steps": 24, **options.pop("lc", {})}
    given: dict[str, Any] = {"epochs": 12, "optimizer": {"rate": 0.05}, "progress": False}
    return Trainer(net, digits_task(), [LC(rules, **settings)], folder=folder, **given | options)


def test_several_kinds_at_once_joint_and_additive() -> None:
    """A joint codebook, a sum of binary and sparse, and bits at a price, in one model."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(),
        *(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()),
        torch.nn.Linear(32, 10),
    )
    task = digits_task()
    Trainer(net, task, epochs=6, optimizer={"rate": 0.1}, progress=False).fit()
    rules: dict[str, Any] = {
        "1.weight": Sum((Binary(), Prune(fraction=0.05))),
        "3.weight": RateAware(beta=1e-6),
        "*.bias": Compression(Codebook(entries=8), ("codebook",)),
    }
    method = LC(rules, mu=0.01, growth=1.25, steps=24)
    trainer = Trainer(net, task, [method], epochs=12, optimizer={"rate": 0.05}, progress=False)
    assert trainer.fit().metric > 0.85
    fitted = method.parameters()
    assert isinstance(fitted["1.weight"], SumParameters)
    biases = [fitted[f"{i}.bias"] for i in (1, 3, 5)]
    assert all(isinstance(b, CodebookParameters) for b in biases)
    books = {b.codebook.tobytes() for b in biases if isinstance(b, CodebookParameters)}
    assert len(books) == 1 and "5.weight" not in fitted
    for name, parameters in fitted.items():
        np.testing.assert_array_equal(net.get_parameter(name).detach().numpy(), parameters.decode())


def test_training_recovers_what_direct_compression_loses() -> None:
    rules: dict[str, Any] = {"*.weight": Compression(Prune(fraction=0.08), ("prune",))}
    trainer = trained(rules)
    trainer._begin(resume=False)
    direct = trainer.validate().metric
    trainer = trained(rules)
    result = trainer.fit()
    assert result.metric > direct + 0.1
    weights = [trainer.model[i].weight for i in (1, 3)]
    kept = sum(int((weight != 0).sum()) for weight in weights)
    assert kept == round(0.08 * (2048 + 320))
    assert trainer.validate().metric == result.metric  # decode(theta) is what was selected


@pytest.mark.parametrize(
    "scheme",
    [
        Codebook(entries=4, start="k-means++"),
        Sum((Binary(), Prune(fraction=0.05))),
        RateAware(beta=1e-5, trellis=True),
        Prune(fraction=0.2, inner=Codebook(entries=8)),
        LowRank(rank=3),
    ],
    ids=lambda scheme: type(scheme).__name__,
)
def test_lc_resumes_bit_for_bit(tmp_path: Path, scheme: Scheme) -> None:
    options: dict[str, Any] = {"epochs": 2, "checkpoint_every": 1, "lc": {"steps": 8}}
    whole = trained({"*.weight": scheme}, **options)
    expected = whole.fit()
    stopped = trained({"*.weight": scheme}, tmp_path, **options)
    step = stopped.callbacks[0].after_step

    def stopping(trainer: Trainer) -> None:
        step(trainer)
        if trainer.step == 23:
            raise KeyboardInterrupt

    stopped.callbacks[0].after_step = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    again = trained({"*.weight": scheme}, tmp_path, **options)
    assert again.fit(resume=True).history == expected.history
    for first, second in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(first, second)


def test_the_cost_of_ranks_by_multiplications_knows_the_positions() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )
    ranks = []
    for alpha in (1e-6, 1e-4):
        method = LC({"0.weight": LowRank(alpha=alpha, cost="flops")}, mu=0.1, steps=2)
        Trainer(net, digits_task(), [method], epochs=1, **PLAIN).fit()
        fitted = method.parameters()["0.weight"]
        assert isinstance(fitted, LowRankParameters)
        ranks.append(fitted.rank)
    assert ranks[0] > ranks[1]


def test_pruned_parameters_are_zero_where_they_say() -> None:
    trainer = trained({"*.weight": Prune(fraction=0.1, inner=Codebook(entries=4))})
    trainer.fit()
    for parameters in trainer.callbacks[0].parameters().values():
        assert isinstance(parameters, PruneParameters)
        assert not parameters.decode()[~parameters.mask].any()


@pytest.mark.parametrize(
    ("rules", "options", "words"),
    [
        ({}, {}, "at least one compression"),
        ({"nothing*": Binary()}, {}, "'nothing\\*' matches no parameter"),
        ({"*": Binary()}, {"mu": 0}, "mu: expected a number above 0"),
        ({"*": Binary()}, {"growth": 0.5}, "growth: expected 1 or more"),
        ({"*": Binary()}, {"steps": 1000}, "1000 steps in 20 steps of training"),
        ({"1.bias": LowRank(rank=1)}, {}, "lc: 1.bias: "),
    ],
)
def test_wrong_options(rules: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Trainer(
            digits_net(), digits_task(), [LC(rules, **{"steps": 2, **options})], epochs=1, **PLAIN
        ).fit()
    with pytest.raises(InputError, match="joint: "):
        Compression(Binary(), ("codebook",))
