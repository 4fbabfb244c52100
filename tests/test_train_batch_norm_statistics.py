# SPDX-License-Identifier: Apache-2.0
"""Statistics of batch normalisation that follow the weights which are left in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from torch import nn  # noqa: E402

from passes.schemes import Binary  # noqa: E402
from tests.train_tasks import digits_net, digits_task  # noqa: E402
from toolkit.errors import InputError  # noqa: E402
from toolkit.train import LC, BatchNormStatistics, Trainer, run_recipe  # noqa: E402
from toolkit.train.train_recipe import RecipeText  # noqa: E402


def normalised_net() -> nn.Sequential:
    """Dropout too, which statistics must not see."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def moments(net: nn.Sequential, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over the first batches of the means and unbiased variances before normalisation."""
    batches = [
        batch[0] for batch, _ in digits_task().prepared(0, torch.device("cpu")).train.batches(0)
    ]
    with torch.no_grad():
        values = [net[:3](batch) for batch in batches[:count]]
    return (
        torch.stack([value.mean(0) for value in values]).mean(0),
        torch.stack([value.var(0) for value in values]).mean(0),
    )


@pytest.mark.parametrize("batches", [5, 100])
def test_statistics_are_those_of_the_weights_that_lc_leaves(batches: int) -> None:
    net = normalised_net()
    methods = [LC({"2.weight": Binary()}, mu=1e-3, steps=4), BatchNormStatistics(batches)]
    trainer = Trainer(net, digits_task(), methods, epochs=2, select="last", progress=False)
    result = trainer.fit()
    mean, variance = moments(net, batches)
    norm = net[3]
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-5, atol=1e-5)
    assert norm.momentum == 0.1 and not net.training
    # What was selected is what is left.
    assert result.metric == pytest.approx(trainer.validate().metric, abs=1e-6)


def test_lc_is_better_with_them_and_training_does_not_see_them() -> None:
    found = []
    for more in ([], [BatchNormStatistics()]):
        net = normalised_net()
        method = LC({"*.weight": Binary()}, mu=1e-3, growth=1.0, steps=2)
        trainer = Trainer(
            net, digits_task(), [method, *more], epochs=2, select="last", progress=False
        )
        trainer.fit()
        found.append((trainer.validate().loss, net[2].weight.detach().clone()))
    assert torch.equal(found[0][1], found[1][1])
    assert found[1][0] < 0.95 * found[0][0]


def test_a_recipe_asks_for_them(tmp_path: Path) -> None:
    text = """\
version: 1
model: "tests.test_train_batch_norm_statistics:normalised_net"
data: "tests.train_tasks:digit_parts"
epochs: 4
select: last
methods:
  - lc: {mu: 0.001, steps: 2, rules: [{role: weight, settings: {stages: [binary]}}]}
  - batch_norm_statistics: {batches: 10}
"""
    first, second = RecipeText(text).recipe.methods
    built = second.built(normalised_net())
    assert isinstance(first.built(normalised_net()), LC)
    assert isinstance(built, BatchNormStatistics) and built.batches == 10
    report = run_recipe(RecipeText(text), tmp_path / "run", progress=False)
    assert report.validation_metric is not None and report.validation_metric > 0.3


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="batches: expected 1 or more, found 0"):
        BatchNormStatistics(0)
    trainer = Trainer(digits_net(), digits_task(), [BatchNormStatistics()], progress=False)
    with pytest.raises(InputError, match="the model has no batch normalisation"):
        trainer.fit()
