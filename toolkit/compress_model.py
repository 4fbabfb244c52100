# SPDX-License-Identifier: Apache-2.0
"""`compress`: a trained ONNX file in, a smaller one out, with proof of what it cost."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.compress_job import Job
from toolkit.errors import InputError
from toolkit.given_settings import METADATA_KEY, GivenSettings, given_settings
from toolkit.ort_session import thread_count
from toolkit.output_file import output_path
from toolkit.progress import Progress, silent
from toolkit.report import Report
from toolkit.targets import choose_target

if TYPE_CHECKING:
    from passes.settings import Recipe
    from toolkit.metrics import Metric
    from toolkit.task_metrics import TaskMetric

PathLike = str | os.PathLike[str]


def compress(
    model: PathLike,
    output: PathLike | None = None,
    *,
    recipe: PathLike | Recipe | None = None,
    bits: int | None = None,
    lossless: bool = False,
    min_sqnr: float | None = None,
    max_error: float | None = None,
    target_ratio: float | None = None,
    target_size: int | None = None,
    min_agreement: float | None = None,
    max_drop: str | float | None = None,
    metric: str | None = None,
    labels: PathLike | None = None,
    calibration: PathLike | None = None,
    sequential: bool = False,
    report: PathLike | None = None,
    dry_run: bool = False,
    jobs: int | None = None,
    portable: Literal["auto", "always", "never"] = "auto",
    for_gpu: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Compresses a model and proves what it cost.

    Args:
        model: path of the ONNX file.
        output: path of the result; `NAME.compressed.onnx` beside the model where None.
        recipe: settings by rules: a YAML file, the name of a ready recipe, or `passes.Recipe`. With
            a target, the weights that no rule names are searched; without one they get the
            recipe's default.
        bits: uniform quantisation of all weights with so many bits, 2 to 16, instead of a search.
        lossless: keep every bit of every weight.
        min_sqnr: least signal-to-noise ratio of each output, in dB.
        max_error: largest error of an output element, as a share of the output's largest magnitude.
        target_ratio: bytes of the original / bytes of the result, above 1.
        target_size: bytes of the result.
        min_agreement: least share of equal winners along the last axis, for classifiers.
        max_drop: how much `metric` may lose: a number in its unit, or "0.5%" of the original's.
        metric: "top1", "cosine", "auc" or "perplexity", measured on the calibration data; or
            `module:function`, called with a function that runs the model, from a mapping of inputs
            to one of outputs, which returns a number, more of which is better.
        labels: right answers for "top1" and "auc": an .npy file with an entry for each sample of
            the calibration data, in its order.
        calibration: real inputs: an .npz file, a folder, or `module:function` that yields mappings.
            Most of them are fitted to, the others measured on; made from the signature where None.
        sequential: at the end fit each layer again to the inputs that the compressed layers before
            it give, and take that where it is better; with calibration only.
        report: path of an HTML report to write.
        dry_run: do all of the work and write nothing.
        jobs: threads; one per core where None.
        portable: embed the decoder as functions of standard operators ("auto": where they take
            under 1 % of the file).
        for_gpu: divide weights into many more blocks, of which a GPU decodes thousands at a time.
        progress: called with a stage and a detail.

    Returns:
        The report. Where a target is not reached the nearest result is still written, where the
        file did not become smaller nothing is.

    Raises:
        InputError: something given cannot be used; one line, nothing written.
        OutputError: the result cannot be written; nothing half-written remains.
        VerificationError: the written file is wrong, which is a bug; nothing remains.
    """
    target_options = {
        "--min-sqnr": min_sqnr,
        "--max-error": max_error,
        "--target-ratio": target_ratio,
        "--target-size": target_size,
        "--min-agreement": min_agreement,
        "--max-drop": max_drop,
        "--metric": metric,
        "--labels": labels,
    }
    if sequential and calibration is None:
        raise InputError("--sequential: give real inputs by --calibration")
    if max_drop is not None and metric is None:
        raise InputError(
            "--max-drop: give the metric that may drop, by --metric top1, cosine, auc, perplexity "
            "or module:function"
        )
    from toolkit.pipeline import GPU_LANE_STEPS, FileLayout, fold_layers, read_source

    job = Job(
        Path(model),
        output_path(output) if output is not None else default_output(Path(model)),
        Path(calibration) if calibration is not None else None,
        output_path(report) if report is not None else None,
        dry_run,
        thread_count(jobs),
        FileLayout(portable, GPU_LANE_STEPS if for_gpu else 0),
        progress or silent,
        make_metric(metric, labels, calibration),
        sequential,
    )
    given = given_settings(recipe, bits, lossless)
    job.check_paths([Path(given.source)] if given.source else [])
    with job.timed("read"):
        source = read_source(job.model)
        if not given.keeps_bits:
            fold_layers(source)
    job.check_outputs(source.external)
    if not source.weights:
        raise InputError(
            f"{job.model}: nothing compressible, no float or 8-bit weight of an operator that "
            "multiplies with it"
        )
    target = choose_target(
        source.num_bytes,
        min_sqnr=min_sqnr,
        max_error=max_error,
        target_ratio=target_ratio,
        target_size=target_size,
        min_agreement=min_agreement,
        max_drop=max_drop,
        fixed=not given.searching or given.recipe is not None,
    )
    if not given.searching and target.kind != "fixed":
        option = "--lossless" if lossless else "--bits"
        raise InputError(f"{option}: cannot be combined with a target")
    if given.recipe is not None and not given.recipe.rules and target.kind != "fixed":
        raise InputError(
            f"--recipe: {given.source or 'it'} has no rules, and with a target the search decides "
            "about everything else"
        )
    settings = given.assign(source, target.kind == "fixed")
    source.model.metadata_props[METADATA_KEY] = given.metadata()
    command = _command(job, given, target_options)
    return job.run(source, target, settings, command, given.label())


def default_output(model: Path) -> Path:
    """`NAME.compressed.onnx` beside the model."""
    return model.with_name(model.name.removesuffix(".onnx") + ".compressed.onnx")


def make_metric(
    text: str | None, labels: PathLike | None, calibration: PathLike | None
) -> Metric | TaskMetric | None:
    """The measure that was asked for, None for none. Raises `InputError`."""
    from toolkit.metrics import Metric
    from toolkit.task_metrics import NAMES, task_metric

    if text is None:
        if labels is not None:
            raise InputError("--labels: belong to --metric top1 or auc")
        return None
    if text in NAMES:
        if labels is not None and calibration is None:
            raise InputError("--labels: give the inputs that they belong to by --calibration")
        return task_metric(text, labels)
    if labels is not None:
        raise InputError(f"--labels: --metric {text} takes none")
    if ":" not in text:
        raise InputError(f"--metric: expected {', '.join(NAMES)} or module:function, found {text}")
    return Metric(text)


def _command(job: Job, given: GivenSettings, targets: Mapping[str, Any]) -> str:
    """The command line that repeats this run."""
    parts = ["toolkit", "compress", str(job.model), "--output", str(job.output)]
    options: dict[str, Any] = {
        "--recipe": given.source,
        "--bits": given.bits,
        **targets,
        "--calibration": job.calibration,
        "--report": job.report,
    }
    for option, value in options.items():
        if value is not None:
            parts += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    if given.lossless:
        parts.append("--lossless")
    if job.sequential:
        parts.append("--sequential")
    if job.layout.portable != "auto":
        parts.append("--portable" if job.layout.portable == "always" else "--no-portable")
    if job.layout.lane_steps:
        parts.append("--for-gpu")
    return shlex.join(parts)
