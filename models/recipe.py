# SPDX-License-Identifier: Apache-2.0
"""What all recipes of published results share: the command line, and how a result is measured.

A recipe trains on the training part, chooses on the validation part, and looks at the official test
set once, with the finished ONNX file. Two ratios are told: bytes of the original network's
parameters as float32 over the bytes from which all parameters are decoded (symbols, tables, scales,
biases, headers), and over the bytes of the file, graph and names included.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from models.data.splits import Part, Splits
from toolkit.errors import InputError, OutputError


@dataclass(frozen=True)
class Goal:
    """A published result: the network's and the method's name, and what must be reached, a ratio of
    parameters and an error on the test set in percent."""

    network: str
    method: str
    ratio: float
    error: float


@dataclass(frozen=True)
class Run:
    """How a recipe is run: with ``seed``; ``quick`` on made-up data, for seconds; ``options`` are
    the recipe's own; ``folder`` holds the checkpoints from which it goes on after it was
    interrupted, None for none."""

    seed: int
    quick: bool
    options: dict[str, Any]
    folder: Path | None = None

    def checkpoints(self, stage: str) -> Path | None:
        """The folder of one training of the run."""
        return None if self.folder is None else self.folder / stage


@dataclass(frozen=True)
class Outcome:
    """A measured result. Errors are in percent, on the validation part and the test set; ``note``
    says what the command does not."""

    network: str
    method: str
    seed: int
    quick: bool
    validation_error: float
    test_error: float
    original_bytes: int
    parameter_bytes: int
    file_bytes: int
    seconds: float
    options: dict[str, Any]
    note: str = ""

    @property
    def ratio(self) -> float:
        """Of parameters."""
        return self.original_bytes / self.parameter_bytes

    @property
    def file_ratio(self) -> float:
        """To the file."""
        return self.original_bytes / self.file_bytes

    def row(self) -> str:
        """A row of the table in RESULTS.md."""
        return (
            f"| {self.network} | {self.method} | {self.seed} | {self.validation_error:.2f} | "
            f"{self.test_error:.2f} | {self.parameter_bytes:,} | {self.ratio:.1f} | "
            f"{self.file_bytes:,} | {self.file_ratio:.1f} | {self.seconds / 60:.1f} |"
        )


HEAD = (
    "| network | method | seed | validation error % | test error % | parameters, bytes | ratio | "
    "file, bytes | ratio | minutes |\n|---|---|---|---|---|---|---|---|---|---|"
)


def measured(
    goal: Goal,
    run: Run,
    model: nn.Module,
    original: nn.Module,
    splits: Splits,
    path: Path,
    start: float,
) -> Outcome:
    """Exports the trained ``model`` and measures the file.

    Args:
        goal: What is tried.
        run: How.
        model: With compressed forms.
        original: The architecture that the paper compresses; its parameters count.
        splits: The validation part, and the test part, which is looked at here.
        path: Where the file is written.
        start: `time.perf_counter` at the beginning of the run.
    """
    import runtime
    import toolkit
    from toolkit.nn import compressed_bytes

    model.eval()
    report = toolkit.export(model, splits.validation.inputs[:2], path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Outcome(
        network=goal.network,
        method=goal.method,
        seed=run.seed,
        quick=run.quick,
        validation_error=error_percent(session, splits.validation),
        test_error=error_percent(session, splits.test),
        original_bytes=4 * sum(parameter.numel() for parameter in original.parameters()),
        parameter_bytes=compressed_bytes(model),
        file_bytes=report.num_bytes,
        seconds=time.perf_counter() - start,
        options=run.options,
    )


def error_percent(session: Any, part: Part) -> float:
    """Percent of the samples of ``part`` that the ONNX file of ``session`` tells wrong."""
    name = session.get_inputs()[0].name
    wrong = 0
    for images, labels in zip(part.inputs.split(500), part.labels.split(500), strict=True):
        (scores,) = session.run(None, {name: images.numpy()})
        wrong += int((np.asarray(scores).argmax(1) != labels.numpy()).sum())
    return 100.0 * wrong / len(part)


_OUT = "Folder of the file and its JSON; a run that was interrupted goes on from there."

Train = Callable[[Run, Splits], nn.Module]


def recipe_command(
    name: str,
    goal: Goal,
    original: Callable[[], nn.Module],
    load: Callable[[Run], Splits],
    train: Train,
    options: dict[str, Any] | None = None,
) -> click.Command:
    """The command of a recipe.

    Args:
        name: What stands behind ``python -m models.``.
        goal: What it tries to reach.
        original: Makes the network that counts.
        load: Gives the data, made up ones where the run is quick.
        train: Trains and returns a model with compressed forms.
        options: Numbers of the recipe that can be set, with their defaults.
    """

    @click.command(help=f"{goal.method} of {goal.network}: {goal.ratio:g} x at {goal.error:g} %.")
    @click.option("--quick", is_flag=True, help="Made-up data and a few steps: does it run?")
    @click.option("--seed", default=0, show_default=True)
    @click.option("--threads", default=1, show_default=True, help="Of torch.")
    @click.option("--out", type=click.Path(path_type=Path), help=_OUT)
    def command(quick: bool, seed: int, threads: int, out: Path | None, **given: Any) -> None:
        from models.fetch import DataUnavailable

        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        unfinished = None if out is None else out / f"seed{seed}.unfinished"
        run = Run(seed, quick, given, unfinished)
        start = time.perf_counter()
        try:
            splits = load(run)
        except DataUnavailable as error:
            raise click.ClickException(str(error)) from error
        try:
            model = train(run, splits)
        except (InputError, OutputError) as error:
            raise click.ClickException(str(error)) from error
        with tempfile.TemporaryDirectory() as folder:
            target = out or Path(folder)
            target.mkdir(parents=True, exist_ok=True)
            outcome = measured(
                goal, run, model, original(), splits, target / f"seed{seed}.onnx", start
            )
            told = "".join(f" --{key.replace('_', '-')} {value}" for key, value in given.items())
            record = {
                "command": f"python -m models.{name}{told}",
                **dataclasses.asdict(outcome),
                "ratio": outcome.ratio,
            }
            (target / f"seed{seed}.json").write_text(json.dumps(record, indent=1) + "\n")
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
        click.echo(f"{HEAD}\n{outcome.row()}")

    for option, default in (options or {}).items():
        flag = f"--{option.replace('_', '-')}"
        command = click.option(flag, option, default=default, show_default=True)(command)
    return command
