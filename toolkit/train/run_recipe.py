# SPDX-License-Identifier: Apache-2.0
"""Runs a training recipe: trains, finds the multiplier where there is a target, tests, exports."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from passes.errors import SchemeError
from toolkit.errors import InputError
from toolkit.output_file import check_output, write_text
from toolkit.train.callback import Callback
from toolkit.train.entropy_penalty import EntropyPenalty
from toolkit.train.multiplier_search import Point, Target, search_multiplier
from toolkit.train.rate_control import RateControl
from toolkit.train.task import Task, first_of
from toolkit.train.train_recipe import RecipeText, TrainRecipe
from toolkit.train.trainer import Trainer

SUMMARY = "result.json"


@dataclass
class TrainReport:
    """What a recipe gave.

    Attributes:
        metric_name: What the metrics are.
        validation_metric: Of the selected state; None where none was selected.
        test_metric: Looked at once, at the end; None without a test set or selected state.
        epoch: Of the selected state.
        num_bytes: From which all parameters are decoded.
        original_bytes: All parameters as float32.
        output, output_bytes: The ONNX file, where one was written.
        multiplier: Where one was searched for.
        points: All runs of the search.
        is_reached: Whether the target was met; True without one.
        folder: Checkpoints and the log.
    """

    metric_name: str
    validation_metric: float | None
    test_metric: float | None
    epoch: int | None
    num_bytes: int
    original_bytes: int
    output: str | None = None
    output_bytes: int | None = None
    multiplier: float | None = None
    points: list[dict[str, float]] = field(default_factory=list)
    is_reached: bool = True
    folder: str = ""

    @property
    def ratio(self) -> float:
        """Bytes of the parameters as float32 / bytes needed to decode them."""
        return self.original_bytes / max(self.num_bytes, 1)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratio": self.ratio}


def run_recipe(
    recipe: RecipeText | str | Path,
    folder: str | Path,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    changes: dict[str, Any] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> TrainReport:
    """Trains as a recipe says.

    Args:
        recipe: Its text, or file.
        folder: For checkpoints, the log and the summary; made where it is missing.
        output: An ONNX file to write.
        resume: Go on where an interrupted run of the same recipe stopped.
        changes: Values in place of the recipe's (`RecipeText.with_values`).
        progress: Show progress on stderr.
        tensorboard: Also write TensorBoard's files.

    Raises:
        SettingsError, InputError: the recipe, or what it names, cannot be used.
        TrainingError: the loss is NaN or diverges.
        OutputError: something cannot be written.
    """
    text = recipe if isinstance(recipe, RecipeText) else RecipeText.read(recipe)
    given = text.with_values(changes or {})
    where = Path(folder)
    if output is not None:
        check_output(Path(output), [])
    run = _Run(text, dict(changes or {}), where, resume, progress, tensorboard)
    where.mkdir(parents=True, exist_ok=True)
    trainer, report = run.searched(given) if run.is_search(given) else run.once(given, {}, where)
    report.folder = str(where)
    if trainer is not None and report.validation_metric is not None:
        if trainer.task.test is not None:
            report.test_metric = trainer.test().metric
        if output is not None and is_first_process():
            report.output, report.output_bytes = str(output), _exported(trainer, Path(output))
    if is_first_process():
        write_text(where / SUMMARY, json.dumps(report.as_dict(), indent=1) + "\n")
    return report


class _Run:
    """One call: what all runs of it share."""

    def __init__(
        self,
        text: RecipeText,
        changes: dict[str, Any],
        folder: Path,
        resume: bool,
        progress: bool,
        tensorboard: bool,
    ) -> None:
        self.text, self.changes, self.folder = text, changes, folder
        self.resume, self.progress, self.tensorboard = resume, progress, tensorboard

    @staticmethod
    def is_search(recipe: TrainRecipe) -> bool:
        """Whether the multiplier is found by several runs."""
        return recipe.target is not None and recipe.target.search is not None

    def once(
        self, recipe: TrainRecipe, values: dict[str, Any], folder: Path
    ) -> tuple[Trainer, TrainReport]:
        """One training run, of the recipe with ``values`` at their places."""
        if values:
            recipe = self.text.with_values({**self.changes, **values})
        task = recipe.data.task(recipe.batch_size, recipe.seed)
        model = _model(recipe)
        target = self._target(recipe, model, task)
        _wrap(model, recipe)
        if recipe.remove_dead_units:
            _alive_units(model)
        callbacks = [spec.built(model) for spec in recipe.methods]
        if target is not None and not self.is_search(recipe):
            callbacks.append(_control(callbacks, target))
        trainer = Trainer(
            model,
            task,
            callbacks,
            recipe.settings,
            folder=folder,
            progress=self.progress,
            tensorboard=self.tensorboard,
        )
        result = trainer.fit(resume=self.resume)
        best, original_bytes = result.best, _plain_bytes(model)
        if recipe.remove_dead_units:
            from toolkit.nn import keep_units

            keep_units(_chain(model), _alive_units(model))
        report = TrainReport(
            metric_name=task.metric_name,
            validation_metric=None if best is None else best.metric,
            test_metric=None,
            epoch=None if best is None else best.epoch,
            num_bytes=trainer.num_bytes(),
            original_bytes=original_bytes,
            is_reached=best is not None,
        )
        return trainer, report

    def searched(self, recipe: TrainRecipe) -> tuple[Trainer | None, TrainReport]:
        """Several runs, the last one that of the multiplier found."""
        options = recipe.target
        if options is None or options.search is None:
            raise InputError("target: there is nothing to search for")
        place: str = options.search
        self.text.with_values({**self.changes, place: options.low})  # is there such a place?
        task = recipe.data.task(recipe.batch_size, recipe.seed)
        target = self._target(recipe, _model(recipe), task)
        if target is None or options.low is None or options.high is None:
            raise InputError("target: give size or max_drop, and low and high")

        def run(multiplier: float, folder: Path | None) -> Point:
            _, report = self.once(recipe, {place: multiplier}, folder or self.folder)
            metric = float("nan") if report.validation_metric is None else report.validation_metric
            return Point(multiplier, report.num_bytes, metric)

        if not self.resume and (self.folder / "points.json").exists():
            raise InputError(
                f"{self.folder}: holds an earlier search; resume it, or give another folder"
            )
        found = search_multiplier(
            run,
            target,
            options.low,
            options.high,
            runs=options.runs,
            larger_is_smaller=options.larger_is_smaller,
            folder=self.folder,
        )
        points = [asdict(point) for point in found.points]
        if found.point is None:
            size = int(min(point.num_bytes for point in found.points))
            plain = _plain_bytes(_model(recipe))
            report = TrainReport(task.metric_name, None, None, None, size, plain, points=points)
            report.is_reached = False
            return None, report
        chosen = found.point.multiplier
        self.resume = True  # the run is there already: it is only loaded
        trainer, report = self.once(recipe, {place: chosen}, self.folder / f"{chosen:.9g}")
        report.multiplier, report.points = chosen, points
        return trainer, report

    @staticmethod
    def _target(recipe: TrainRecipe, model: nn.Module, task: Task) -> Target | None:
        options = recipe.target
        if options is None or (options.size is None and options.max_drop is None):
            return None
        baseline = options.baseline
        if options.max_drop is not None and baseline is None:
            if recipe.model.weights is None:
                raise InputError(
                    "target: max_drop needs a baseline: give target.baseline, or model.weights of "
                    "a trained model"
                )
            device = recipe.settings.torch_device()
            prepared = task.prepared(recipe.seed, device)
            baseline = prepared.evaluate(model.to(device), prepared.validation, device).metric
        return Target(options.size, options.max_drop, baseline, task.higher_is_better)


def _model(recipe: TrainRecipe) -> nn.Module:
    """The model; its random weights are a function of the seed."""
    from toolkit.train.random_state import seed_everything

    seed_everything(recipe.seed)
    return recipe.model.model()


def _wrap(model: nn.Module, recipe: TrainRecipe) -> None:
    """Gives weights the forms of the recipe's ``compress``."""
    from toolkit.nn import wrap

    if recipe.compress is not None:
        try:
            wrap(model, recipe.compress)
        except InputError as error:
            raise InputError(f"compress: {error}") from error


def _control(callbacks: list[Callback], target: Target) -> RateControl:
    """What steers the entropy penalty. Raises InputError where there is none."""
    for callback in callbacks:
        if isinstance(callback, EntropyPenalty):
            return RateControl(callback, target)
    raise InputError(
        "target: without an entropy_penalty name the number to be found: target.search, low, high"
    )


def _chain(model: nn.Module) -> nn.Sequential:
    if not isinstance(model, nn.Sequential):
        raise InputError(f"remove_dead_units: {type(model).__name__} is no nn.Sequential")
    return model


def _alive_units(model: nn.Module) -> dict[str, Tensor]:
    """Raises InputError where the model is no chain of layers."""
    from toolkit.nn import alive_units

    try:
        return alive_units(_chain(model))
    except SchemeError as error:
        raise InputError(f"remove_dead_units: {error}") from error


def _plain_bytes(model: nn.Module) -> int:
    from toolkit.nn import plain_bytes

    return plain_bytes(model)


def _exported(trainer: Trainer, path: Path) -> int:
    """Writes the ONNX file; its bytes."""
    from toolkit.nn.export import export

    model = trainer.model.cpu().eval()
    trainer.attach_parameters()
    batch, _ = next(iter(trainer.task.validation.batches(0)))
    example = first_of(batch)[:2].cpu()
    return int(export(model, example, path).num_bytes)


def is_first_process() -> bool:
    """Whether this process writes, among those that torchrun has started."""
    return int(os.environ.get("RANK", "0")) == 0
