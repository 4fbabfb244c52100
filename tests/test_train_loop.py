# SPDX-License-Identifier: Apache-2.0
"""The loop: deterministic, resumable bit for bit, selected on validation data, one error each."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.train_tasks import Bowl, bowl_task, digits_net, digits_task
from toolkit.errors import InputError, OutputError, TrainingError
from toolkit.train import Callback, StepContext, TensorLoader, Trainer, classification, held_out
from toolkit.train.checkpoint import read_checkpoint, write_checkpoint
from toolkit.train.run_state import load_run
from toolkit.train.train_settings import ScheduleSettings

OPTIONS: dict[str, Any] = {"epochs": 3, "optimizer": {"rate": 0.1}, "progress": False}


class Noisy(Callback):
    """Draws from all three generators, so that their states matter."""

    def __init__(self) -> None:
        self.drawn = 0.0

    def before_step(self, trainer: Trainer, step: StepContext) -> None:
        import random

        draw = random.random() + float(np.random.rand()) + float(torch.rand(()))
        self.drawn += draw
        step.terms["noise"] = draw * 1e-3 * next(trainer.model.parameters()).square().sum()

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


class Stop(Callback):
    """Interrupts after a number of steps."""

    name = "Noisy"  # takes the other's place in checkpoints

    def __init__(self, inner: Noisy, after: int) -> None:
        self.inner, self.after = inner, after

    def before_step(self, trainer: Trainer, step: StepContext) -> None:
        self.inner.before_step(trainer, step)

    def before_forward(self, trainer: Trainer) -> None:
        if trainer.step == self.after:
            raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()


def weights_of(model: nn.Module) -> list[np.ndarray]:
    return [value.numpy().copy() for value in model.state_dict().values()]


def dropout_net() -> nn.Module:
    net = digits_net()
    net.insert(3, nn.Dropout(0.2))
    return net


def test_training_learns_and_is_deterministic() -> None:
    runs = []
    for _ in range(2):
        trainer = Trainer(digits_net(), digits_task(), **{**OPTIONS, "epochs": 8})
        result = trainer.fit()
        runs.append((result.history, weights_of(trainer.model)))
        assert result.metric > 0.9
        assert trainer.test().metric > 0.9
    assert runs[0][0] == runs[1][0]
    for first, second in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("after", [5, 20, 49])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, optimizer: str, after: int) -> None:
    options = {
        **OPTIONS,
        "optimizer": {"name": optimizer, "rate": 0.01},
        "schedule": {"name": "cosine", "warmup": 0.5},
        "checkpoint_every": 1,
    }
    whole = Trainer(dropout_net(), digits_task(), [Noisy()], **options)
    expected = whole.fit()
    with pytest.raises(KeyboardInterrupt):
        stop = Stop(Noisy(), after)
        Trainer(dropout_net(), digits_task(), [stop], folder=tmp_path / "run", **options).fit()
    torch.rand(7)  # whatever happens between
    again = Trainer(dropout_net(), digits_task(), [Noisy()], folder=tmp_path / "run", **options)
    found = again.fit(resume=True)
    assert found.history == expected.history
    for first, second in zip(weights_of(whole.model), weights_of(again.model), strict=True):
        np.testing.assert_array_equal(first, second)
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["validation_metric"]) == expected.history[-1]["validation_metric"]


def test_a_data_loader_of_torch_resumes_too(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    def task() -> Any:
        parts = digits_task()
        loader = DataLoader(TensorDataset(*parts.train.tensors), batch_size=50, shuffle=True)
        return classification(loader, parts.validation)

    options = {**OPTIONS, "checkpoint_every": 1}
    expected = Trainer(digits_net(), task(), [Noisy()], **options).fit()
    with pytest.raises(KeyboardInterrupt):
        Trainer(digits_net(), task(), [Stop(Noisy(), 17)], folder=tmp_path, **options).fit()
    found = Trainer(digits_net(), task(), [Noisy()], folder=tmp_path, **options).fit(resume=True)
    assert found.history == expected.history


def test_a_checkpoint_is_safetensors_and_json(tmp_path: Path) -> None:
    Trainer(digits_net(), digits_task(), [Noisy()], folder=tmp_path, **OPTIONS).fit()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["best.safetensors", "last.safetensors", "log.csv"]
    for name in files[:2]:
        content = (tmp_path / name).read_bytes()
        assert content[8:9] == b"{"  # the JSON header of safetensors
    best = read_checkpoint(tmp_path / "best.safetensors")
    net = digits_net()
    net.load_state_dict(best["model"])
    data = digits_task()
    assert data.evaluate(net.eval(), data.validation).metric == best["metric"]


def test_selection_is_by_validation_data() -> None:
    """The worst rate at the end spoils the last weights, not the selected ones."""
    options = {
        **OPTIONS,
        "epochs": 6,
        "schedule": {"name": "step", "milestones": [5], "factor": 50},
    }
    trainer = Trainer(digits_net(), digits_task(), **options)
    result = trainer.fit()
    metrics = [record["validation_metric"] for record in result.history]
    assert metrics[-1] < max(metrics)
    assert result.best is not None and result.best.metric == max(metrics)
    assert trainer.validate().metric == max(metrics)


def test_the_test_set_is_looked_at_once() -> None:
    seen = []

    class Counted(TensorLoader):
        def batches(self, *given: Any, **options: Any) -> Any:
            seen.append(1)
            return super().batches(*given, **options)

    data = digits_task()
    counted = Counted(*data.test.tensors, batch_size=100)
    trainer = Trainer(digits_net(), classification(data.train, data.validation, counted), **OPTIONS)
    trainer.fit()
    assert not seen
    assert trainer.test() == trainer.test() and len(seen) == 1


def test_nan_and_divergence_are_one_error_and_keep_the_checkpoint(tmp_path: Path) -> None:
    class Spoil(Callback):
        name = "spoil"

        def before_step(self, trainer: Trainer, step: StepContext) -> None:
            if trainer.step == 30:
                step.terms["task"] = step.terms["task"] * float("nan")

    trainer = Trainer(digits_net(), digits_task(), [Spoil()], folder=tmp_path, **OPTIONS)
    with pytest.raises(TrainingError, match=r"step 30 of epoch 2 .* nan .*last\.safetensors"):
        trainer.fit()
    good = read_checkpoint(tmp_path / "last.safetensors")
    assert good["place"] == [20, 1, 0]
    wild = {**OPTIONS, "optimizer": {"rate": 1e4}}
    with pytest.raises(TrainingError, match="diverges|nan|inf"):
        Trainer(digits_net(), digits_task(), **wild).fit()


def test_a_checkpoint_of_another_model_or_run_is_refused(tmp_path: Path) -> None:
    Trainer(digits_net(), digits_task(), folder=tmp_path, **OPTIONS).fit()
    with pytest.raises(InputError, match="holds a checkpoint of an earlier run"):
        Trainer(digits_net(), digits_task(), folder=tmp_path, **OPTIONS).fit()
    with pytest.raises(InputError, match="another model: .* expected .* found float32"):
        Trainer(digits_net(hidden=16), digits_task(), folder=tmp_path, **OPTIONS).fit(resume=True)
    with pytest.raises(InputError, match="another model: method Noisy"):
        Trainer(digits_net(), digits_task(), [Noisy()], folder=tmp_path, **OPTIONS).fit(resume=True)
    with pytest.raises(InputError, match="seed was 0, now it is 1"):
        Trainer(digits_net(), digits_task(), folder=tmp_path, seed=1, **OPTIONS).fit(resume=True)
    last = tmp_path / "last.safetensors"
    content = last.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\x00" * 64, content[:8] + b"[" * 100):
        last.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last\.safetensors"):
            Trainer(digits_net(), digits_task(), folder=tmp_path, **OPTIONS).fit(resume=True)


def test_a_checkpoint_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "file").touch()
    with pytest.raises(OutputError, match="taken"):
        write_checkpoint(target, {"a": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epoch": 3}, "epoch: unknown option"),
        ({"optimizer": {"rate": -1}}, "optimizer.rate"),
        ({"device": "abacus"}, "device"),
        ({"optimizer": {"rate_factors": {"nothing*": 2.0}}}, "'nothing\\*' matches no parameter"),
    ],
)
def test_wrong_settings(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Trainer(digits_net(), digits_task(), progress=False, **options).fit()


def test_missing_data() -> None:
    with pytest.raises(InputError, match="no samples"):
        TensorLoader(torch.zeros(0, 3))
    with pytest.raises(InputError, match="no validation set"):
        Trainer(digits_net(), classification(digits_task().train, None))
    with pytest.raises(InputError, match="no test set"):
        data = digits_task()
        Trainer(digits_net(), classification(data.train, data.validation), **OPTIONS).test()
    with pytest.raises(InputError, match="differ in number"):
        TensorLoader(torch.zeros(3), torch.zeros(4))
    with pytest.raises(InputError, match="held out"):
        held_out((torch.zeros(3),), 3)


def test_parts_of_the_data_are_disjoint_and_whole() -> None:
    kept, held = held_out((torch.arange(100), torch.arange(100)), 20, seed=3)
    assert sorted(kept[0].tolist() + held[0].tolist()) == list(range(100))
    assert torch.equal(kept[0], kept[1]) and len(held[0]) == 20


def test_every_sample_once_an_epoch_in_a_new_order() -> None:
    loader = TensorLoader(torch.arange(103), batch_size=10, shuffle=True, seed=1)
    orders = [
        [int(x) for (batch,), _ in loader.batches(epoch) for x in batch] for epoch in range(2)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(103)) and orders[0] != orders[1]
    rest = [int(x) for (batch,), _ in loader.batches(0, first=4) for x in batch]
    assert rest == orders[0][40:] and len(loader) == 11


def test_schedules() -> None:
    cosine = ScheduleSettings(name="cosine", warmup=1, last=0.1)
    assert cosine.share(0.5, 5) == 0.5 and cosine.share(1, 5) == 1
    assert cosine.share(3, 5) == pytest.approx(0.55) and cosine.share(5, 5) == pytest.approx(0.1)
    steps = ScheduleSettings(name="step", milestones=(2.0, 4.0))
    assert [steps.share(t, 5) for t in (1.9, 2, 4.5)] == pytest.approx([1, 0.1, 0.01])
    assert ScheduleSettings(name="exponential").share(2.5, 5) == pytest.approx(0.1)


def test_the_first_step_is_gradient_descent() -> None:
    model = Bowl([1.0, -2.0], [0.0, 0.0], [1.0, 2.0])
    options = {"optimizer": {"rate": 0.1, "momentum": 0.0, "rate_factors": {"weight": 0.5}}}
    Trainer(model, bowl_task(1), epochs=1, progress=False, **options).fit()
    np.testing.assert_allclose(model.weight.detach().numpy(), [0.95, -1.8], rtol=1e-6)


def test_half_precision_learns() -> None:
    trainer = Trainer(digits_net(), digits_task(), precision="bf16", **{**OPTIONS, "epochs": 8})
    assert trainer.fit().metric > 0.9
    assert next(trainer.model.parameters()).dtype == torch.float32


def test_lines_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    Trainer(digits_net(), digits_task(), **{**OPTIONS, "progress": True}).fit()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"epoch 3/3: loss [\d.]+, validation loss [\d.]+, validation metric [\d.]+", lines[-1]
    )


def test_tensorboard_needs_a_folder() -> None:
    with pytest.raises(InputError, match="tensorboard: give a folder"):
        Trainer(digits_net(), digits_task(), **{**OPTIONS, "tensorboard": True})


def test_data_that_do_not_fit_the_model_are_one_error(tmp_path: Path) -> None:
    inputs, labels = torch.randn(100, 5), torch.randint(0, 3, (100,))
    good = TensorLoader(inputs, labels, batch_size=20)
    wide = TensorLoader(torch.randn(100, 7), labels, batch_size=20)
    unknown = TensorLoader(inputs, labels + 4, batch_size=20)
    for train, validation, words in (
        (wide, good, "data: the first batch: .* cannot be multiplied"),
        (unknown, good, "data: the first batch: .* out of bounds"),
        (good, wide, "data: in evaluation: .* cannot be multiplied"),
        (good, unknown, "data: in evaluation: .* out of bounds"),
    ):
        trainer = Trainer(nn.Linear(5, 3), classification(train, validation), **OPTIONS)
        with pytest.raises(InputError, match=words):
            trainer.fit()


def test_two_callbacks_of_one_name() -> None:
    with pytest.raises(InputError, match="two are named 'Noisy'"):
        Trainer(digits_net(), digits_task(), [Noisy(), Noisy()])


def test_loading_needs_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    Trainer(digits_net(), digits_task(), [Noisy()], folder=tmp_path, **OPTIONS).fit()

    def refused(*given: Any, **options: Any) -> None:
        raise RuntimeError("pickle")

    for name in ("load", "loads", "dump", "dumps", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, refused)
    trainer = Trainer(digits_net(), digits_task(), [Noisy()], folder=tmp_path, **OPTIONS)
    trainer._begin(resume=True)
    load_run(trainer, tmp_path / "last.safetensors")
    assert trainer.epoch == 3
