# SPDX-License-Identifier: Apache-2.0
"""The commands that train: `toolkit train` and `toolkit distill`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from toolkit.commands.options import JSON_OPTION, PATH, Bytes
from toolkit.commands.reporting import NOT_REACHED, reported
from toolkit.errors import InputError


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options of both commands."""
    options = (
        click.option("-o", "--output", type=PATH, help="Write a compressed ONNX file here."),
        click.option("--folder", type=PATH, help="For checkpoints and logs; NAME.run by default."),
        click.option("--resume", is_flag=True, help="Go on where an earlier run stopped."),
        click.option("--target-size", type=Bytes(), help="Bytes of all parameters, e.g. 8.5kB."),
        click.option("--max-drop", help="How much the metric may lose, e.g. 0.002 or 0.5%."),
        click.option("--epochs", type=int, help="In place of the recipe's."),
        click.option("--seed", type=int, help="In place of the recipe's."),
        click.option("--device", help="cpu or cuda, in place of the recipe's."),
        click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's files."),
        JSON_OPTION,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _print_schema(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    with reported(context):
        _check_torch()
        from toolkit.train.train_recipe import TrainRecipe

        click.echo(json.dumps(TrainRecipe.json_schema(), indent=2))
    context.exit()


@click.command("train")
@click.argument("recipe", type=PATH)
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of training recipes.",
)
@_shared
@click.pass_context
def train_command(context: click.Context, /, recipe: str, **options: Any) -> None:
    """Train as the YAML file RECIPE says, and write a compressed ONNX file.

    Several processes: torchrun --nproc-per-node=2 -m toolkit train RECIPE
    """
    _run(context, recipe, {}, **options)


@click.command("distill")
@click.argument("recipe", type=PATH)
@click.option("--teacher", required=True, help="module:function, or a name of models.")
@click.option("--teacher-weights", type=PATH, help="Its checkpoint, or state dict (safetensors).")
@click.option("--temperature", type=float, default=2.0, show_default=True)
@click.option("--alpha", type=float, default=0.7, show_default=True, help="Share of the teacher.")
@click.option("--ask", default="always", show_default=True, help="always, uncertain or wrong.")
@_shared
@click.pass_context
def distill_command(
    context: click.Context,
    /,
    recipe: str,
    teacher: str,
    teacher_weights: str | None,
    temperature: float,
    alpha: float,
    ask: str,
    **options: Any,
) -> None:
    """Train the student of RECIPE, with its methods, on what a teacher says."""
    source = {"source": teacher, "weights": teacher_weights}
    method = {"teacher": source, "temperature": temperature, "alpha": alpha, "ask": ask}
    _run(context, recipe, {"distillation": method}, **options)


def _run(
    context: click.Context,
    recipe: str,
    method: dict[str, Any],
    *,
    output: str | None,
    folder: str | None,
    resume: bool,
    target_size: int | None,
    max_drop: str | None,
    epochs: int | None,
    seed: int | None,
    device: str | None,
    tensorboard: bool,
    as_json: bool,
) -> None:
    with reported(context), _as_input_errors():
        if target_size is not None and max_drop is not None:
            raise InputError("--target-size and --max-drop: give one target only")
        _check_torch()
        from toolkit.train.run_recipe import run_recipe
        from toolkit.train.train_recipe import RecipeText

        text = RecipeText.read(recipe)
        changes: dict[str, Any] = {
            name: value
            for name, value in (("epochs", epochs), ("seed", seed), ("device", device))
            if value is not None
        }
        if method:
            changes["methods"] = [*text.data.get("methods", []), method]
        if target_size is not None:
            changes |= {"target.size": target_size, "target.max_drop": None}
        if max_drop is not None:
            changes |= {"target.max_drop": _drop(max_drop, text), "target.size": None}
        report = run_recipe(
            text,
            folder if folder is not None else f"{Path(recipe).stem}.run",
            output=output,
            resume=resume,
            changes=changes,
            progress=not as_json,
            tensorboard=tensorboard,
        )
        _print(report, as_json)
        sys.exit(0 if report.is_reached else NOT_REACHED)


@contextmanager
def _as_input_errors() -> Iterator[None]:
    """Wrong settings and schemes that do not fit are bad input."""
    from passes.errors import ModelError, SchemeError, SettingsError

    try:
        yield
    except (ModelError, SchemeError, SettingsError) as error:
        raise InputError(str(error)) from error


def _drop(text: str, recipe: Any) -> float:
    """A drop of the metric; a share is one of the baseline that the recipe gives."""
    from toolkit.metrics import parse_drop

    value, is_share = parse_drop(text)
    if not is_share:
        return value
    options = recipe.recipe.target
    if options is None or options.baseline is None:
        raise InputError("--max-drop: a share needs target.baseline in the recipe")
    return float(value * abs(options.baseline))


def _check_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise InputError("training needs torch: pip install 'onnx-weight-toolkit[train]'")


def _print(report: Any, as_json: bool) -> None:
    from toolkit.train.run_recipe import is_first_process

    if not is_first_process():
        return
    if as_json:
        from toolkit.report import to_json

        click.echo(to_json(report.as_dict()))
        return
    from toolkit.console import print_table, size_text

    rows = [("parameters", f"{size_text(report.num_bytes)}, {report.ratio:.1f} times smaller")]
    if report.output is not None:
        rows.append((report.output, size_text(report.output_bytes)))
    for name, metric in (
        ("validation", report.validation_metric),
        ("test", report.test_metric),
    ):
        if metric is not None:
            rows.append((f"{report.metric_name} on {name} data", f"{metric:.5g}"))
    if report.multiplier is not None:
        rows.append(("multiplier found", f"{report.multiplier:.6g}"))
    if not report.is_reached:
        rows.append(("target", "not reached"))
    rows.append(("folder", report.folder))
    print_table(("what", "found"), rows)
