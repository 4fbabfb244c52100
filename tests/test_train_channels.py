# SPDX-License-Identifier: Apache-2.0
"""Channel pruning of torch models, and training in transform domains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.train_tasks import digits_net, digits_task
from toolkit.errors import InputError
from toolkit.nn import compressed_bytes, wrap
from toolkit.train import Trainer, prune_channels, transform_recipe


class Residual(nn.Module):
    """Convolutions without biases, batch normalisation, a shortcut, a depthwise one, two dense."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.first = nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.second = nn.Conv2d(24, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.hidden = nn.Linear(16 * 16, 32)
        self.last = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        x = nn.functional.max_pool2d(torch.relu(self.depthwise(x)), 2)
        return self.last(torch.relu(self.hidden(x.flatten(1))))


def trained() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    net, task = Residual(), digits_task()
    Trainer(net, task, epochs=4, optimizer={"rate": 0.05}, progress=False).fit()
    return net, task


def test_channels_go_the_rest_is_refitted_and_tuning_restores_the_accuracy() -> None:
    net, task = trained()
    before = task.evaluate(net, task.validation).metric
    size = sum(p.numel() for p in net.parameters())
    groups = prune_channels(net, task.train.tensors[0][:256], 0.5)
    assert sum(group.num_removed for group in groups) > 0
    pruned = sum(p.numel() for p in net.parameters())
    assert pruned < 0.5 * size
    assert net.first.out_channels == net.first.weight.shape[0] == net.second.in_channels == 12
    assert net.depthwise.groups == net.depthwise.in_channels == net.stem.out_channels
    assert net.norm.num_features == net.norm.running_mean.numel() == net.stem.out_channels
    after = task.evaluate(net, task.validation).metric
    trainer = Trainer(net, task, epochs=3, optimizer={"rate": 0.02}, progress=False)
    tuned = trainer.fit().metric
    assert tuned >= max(after, before - 0.02)


def test_reconstruction_loses_less_than_norms_alone() -> None:
    metrics = []
    for options in ({"selection": "greedy"}, {"selection": "random", "reconstruct": False}):
        net, task = trained()
        prune_channels(net, task.train.tensors[0][:256], {"first*": 0.7}, **options)
        assert net.first.out_channels == 7 and net.stem.out_channels == 16
        metrics.append(task.evaluate(net, task.validation).loss)
    assert metrics[0] < metrics[1]


def test_what_cannot_be_pruned() -> None:
    task = digits_task()
    images = task.train.tensors[0]
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match="no channel can be removed"):
        prune_channels(one, images[:64])
    with pytest.raises(InputError, match="'x' matches no layer"):
        prune_channels(digits_net(), images[:64], {"x": 0.5})
    with pytest.raises(InputError, match="at least 2 samples"):
        prune_channels(digits_net(), images[:1])

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(288, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).view(-1, 288))

    with pytest.raises(InputError, match="its forward fails"):
        prune_channels(Fixed(), images[:64], 0.5, reconstruct=False, selection="l2")


@pytest.mark.parametrize("layers", ["linear", "conv", "all"])
@pytest.mark.parametrize("kind", ["dct", "dst", "haar"])
def test_layers_are_trained_in_a_transform_domain(kind: str, layers: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(200, 32), nn.ReLU()),
        nn.Linear(32, 10),
    )
    task = digits_task()
    wrap(net, transform_recipe(kind, layers, block=8, bits=8))
    from passes.schemes import TransformParameters
    from toolkit.nn import fitted_parameters

    start = task.evaluate(net, task.validation).loss
    trainer = Trainer(net, task, epochs=1, optimizer={"rate": 0.05}, progress=False)
    trainer.fit()
    found = {n for n, p in fitted_parameters(net).items() if isinstance(p, TransformParameters)}
    expected = {"linear": {"3.weight", "5.weight"}, "conv": {"0.weight"}}
    assert found == expected.get(layers, expected["linear"] | expected["conv"])
    assert task.evaluate(net, task.validation).loss < start
    assert compressed_bytes(net) < 4 * sum(p.numel() for p in net.parameters())


def test_learned_frequencies_and_wrong_options() -> None:
    net, task = digits_net(), digits_task()
    wrap(net, transform_recipe("cosine", "linear"))
    start = task.evaluate(net, task.validation).loss
    Trainer(net, task, epochs=2, optimizer={"rate": 0.02}, progress=False).fit()
    assert task.evaluate(net, task.validation).loss < start
    with pytest.raises(InputError, match="layers: expected linear, conv or all"):
        transform_recipe(layers="some")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="of linear layers only"):
        transform_recipe("cosine", "all")
    with pytest.raises(InputError, match="keep"):
        transform_recipe(keep=0.0)
