# SPDX-License-Identifier: Apache-2.0
"""The multiplier is found: bisection over runs, a controller during one run, sweeps that resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from passes.schemes import Prune, Uniform
from tests.train_tasks import digits_net, digits_task
from toolkit.errors import InputError
from toolkit.nn import Latent, attach, compressed_bytes
from toolkit.train import (
    LC,
    EntropyPenalty,
    Point,
    RateControl,
    Target,
    Trainer,
    search_multiplier,
    sweep,
)


def law(multiplier: float, folder: Path | None) -> Point:
    """Size and accuracy as functions of a multiplier."""
    return Point(multiplier, 1000 / (1 + multiplier), 1 - 0.01 * multiplier)


@pytest.mark.parametrize("size", [200.0, 60.0])
def test_bisection_finds_the_multiplier_for_a_size(size: float) -> None:
    found = search_multiplier(law, Target(size=size), 0.1, 100, runs=14)
    assert found.point is not None and len(found.points) <= 14
    assert found.point.multiplier == pytest.approx(1000 / size - 1, rel=0.01)
    assert found.point.num_bytes <= size


def test_bisection_finds_the_multiplier_for_a_drop() -> None:
    target = Target(max_drop=0.05, baseline=1.0)
    found = search_multiplier(law, target, 0.1, 100, runs=14)
    assert found.point is not None
    assert found.point.multiplier == pytest.approx(5.0, rel=0.01) and found.point.multiplier <= 5

    def rising(multiplier: float, folder: Path | None) -> Point:  # shares that are kept
        return Point(multiplier, 1000 * multiplier, multiplier**0.1)

    target = Target(max_drop=0.1, baseline=1.0)
    found = search_multiplier(rising, target, 0.0, 1.0, runs=14, larger_is_smaller=False)
    assert found.point is not None
    assert found.point.multiplier == pytest.approx(0.9**10, rel=0.01)
    error = Target(max_drop=0.05, baseline=0.0, higher_is_better=False)
    assert error.is_met(Point(1, 1, 0.04)) and not error.is_met(Point(1, 1, 0.06))
    assert not error.is_met(Point(1, 1, math.nan))


def test_targets_out_of_reach_or_met_at_once() -> None:
    assert search_multiplier(law, Target(size=1.0), 0.1, 100).point is None
    found = search_multiplier(law, Target(size=2000.0), 0.1, 100)
    assert found.point is not None and found.point.multiplier == 0.1
    for wrong in (
        lambda: Target(),
        lambda: Target(size=1, max_drop=1, baseline=1),
        lambda: Target(max_drop=0.1),
        lambda: search_multiplier(law, Target(size=5), 2, 1),
        lambda: search_multiplier(law, Target(size=5), 1, 2, runs=1),
    ):
        with pytest.raises(InputError, match="target"):
            wrong()


def test_a_sweep_resumes(tmp_path: Path) -> None:
    calls: list[float] = []

    def run(multiplier: float, folder: Path | None) -> Point:
        assert folder is not None and folder.is_dir()
        calls.append(multiplier)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return law(multiplier, folder)

    with pytest.raises(KeyboardInterrupt):
        sweep(run, [1.0, 2.0, 4.0], tmp_path)
    points = sweep(run, [1.0, 2.0, 4.0], tmp_path)
    assert calls == [1.0, 2.0, 4.0, 4.0]
    assert points == [law(m, None) for m in (1.0, 2.0, 4.0)]
    (tmp_path / "points.json").write_text("{}")
    assert sweep(law, [], tmp_path) == []
    (tmp_path / "points.json").write_text("[3]")
    with pytest.raises(InputError, match="not the points of a sweep"):
        sweep(law, [], tmp_path)


def latent_net() -> nn.Module:
    """A trained dense network whose weights are latents."""
    net = digits_net()
    Trainer(net, digits_task(), epochs=6, optimizer={"rate": 0.1}, progress=False).fit()
    for layer in (net[1], net[3]):
        attach(layer, "weight", Latent(tuple(layer.weight.shape)))
    return net


OPTIONS: dict[str, Any] = {"optimizer": {"name": "adam", "rate": 0.005}, "progress": False}


def test_a_sweep_over_lambda_is_a_curve(tmp_path: Path) -> None:
    def run(multiplier: float, folder: Path | None) -> Point:
        net = latent_net()
        penalty = EntropyPenalty(multiplier)
        options = {**OPTIONS, "epochs": 4, "select": "last"}
        trainer = Trainer(net, digits_task(), [penalty], folder=folder, **options)
        result = trainer.fit(resume=True)
        return Point(multiplier, trainer.num_bytes(), result.metric)

    points = sweep(run, [1e-6, 1e-4, 1e-2], tmp_path)
    sizes = [point.num_bytes for point in points]
    assert sizes[0] > sizes[1] > sizes[2]
    assert points[0].metric > points[2].metric


def test_the_controller_reaches_a_size() -> None:
    net = latent_net()
    start = compressed_bytes(net.eval())
    size = start * 0.5
    penalty = EntropyPenalty(1e-5)
    control = RateControl(penalty, Target(size=size))
    trainer = Trainer(net, digits_task(), [penalty, control], epochs=20, **OPTIONS)
    result = trainer.fit()
    assert result.best is not None
    assert trainer.num_bytes() == compressed_bytes(net) <= size
    assert trainer.num_bytes() > 0.9 * size  # it does not shrink further than it must
    assert result.metric > 0.85 and penalty.multiplier > 1e-5


def test_the_controller_keeps_to_a_drop() -> None:
    net = latent_net()
    task = digits_task()
    baseline = task.evaluate(net.eval(), task.validation).metric
    start = compressed_bytes(net)
    penalty = EntropyPenalty(1e-5)
    control = RateControl(penalty, Target(max_drop=0.03, baseline=baseline), gain=0.5)
    trainer = Trainer(net, task, [penalty, control], epochs=16, **OPTIONS)
    result = trainer.fit()
    assert result.best is not None and result.metric >= baseline - 0.03 - 1e-9
    sizes = [r["bytes"] for r in result.history if r["validation_metric"] >= baseline - 0.03]
    assert trainer.num_bytes() == min(sizes) < 0.6 * start


def test_bisection_over_short_runs_of_lc(tmp_path: Path) -> None:
    """The share of weights that LC keeps, found for a size."""
    net = digits_net()
    task = digits_task()
    Trainer(net, task, epochs=6, optimizer={"rate": 0.1}, progress=False).fit()
    state = {name: value.clone() for name, value in net.state_dict().items()}

    def run(share: float, folder: Path | None) -> Point:
        net.load_state_dict(state)
        scheme = Prune(fraction=share, inner=Uniform(bits=4))
        method = LC({"*.weight": scheme}, mu=0.01, growth=1.5, steps=8)
        trainer = Trainer(
            net, task, [method], epochs=2, folder=folder, optimizer={"rate": 0.05}, progress=False
        )
        metric = trainer.fit(resume=True).metric
        return Point(share, trainer.num_bytes(), metric)

    found = search_multiplier(
        run, Target(size=700), 0.02, 0.9, runs=6, larger_is_smaller=False, folder=tmp_path
    )
    assert found.point is not None and 600 < found.point.num_bytes <= 700
    kept = [torch.tensor(p.metric) for p in found.points if p.num_bytes <= 700]
    assert found.point.metric == max(kept)


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="begin above 0"):
        RateControl(EntropyPenalty(0.0), Target(size=5))
    with pytest.raises(InputError, match="gain"):
        RateControl(EntropyPenalty(1.0), Target(size=5), gain=0)
    with pytest.raises(InputError, match="no weight of the model is compressed"):
        Trainer(digits_net(), digits_task(), [EntropyPenalty(1e-3)], epochs=1, progress=False).fit()
