# SPDX-License-Identifier: Apache-2.0
"""`compress`: a trained ONNX file in, a smaller one out, with proof of what it cost."""

from __future__ import annotations

import math
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import InputError, OutputError, VerificationError
from toolkit.fidelity import Fidelity, compare_outputs
from toolkit.given_settings import METADATA_KEY, GivenSettings, given_settings
from toolkit.memory import release_memory, smaller_blocks_mapped
from toolkit.ort_session import thread_count
from toolkit.output_file import beside, check_output, output_path, publish
from toolkit.report import Report, TensorRow
from toolkit.search import SearchResult, TracePoint
from toolkit.targets import Target, choose_target
from toolkit.versions import versions

if TYPE_CHECKING:
    from passes.settings import Recipe, WeightSettings
    from toolkit.calibration import Feed
    from toolkit.choose_settings import Choice
    from toolkit.metrics import Metric
    from toolkit.pipeline import FileLayout, Finished, Source
    from toolkit.task_metrics import TaskMetric
    from toolkit.verify import Expected

STOCK_FEEDS = 4
"""Feeds that are run on stock ONNX Runtime, where every run decodes all weights anew."""

Progress = Callable[[str, str], None]
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

    job = _Job(
        Path(model),
        output_path(output) if output is not None else default_output(Path(model)),
        Path(calibration) if calibration is not None else None,
        output_path(report) if report is not None else None,
        dry_run,
        thread_count(jobs),
        FileLayout(portable, GPU_LANE_STEPS if for_gpu else 0),
        progress or (lambda stage, detail: None),
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


@dataclass
class _Job:
    model: Path
    output: Path
    calibration: Path | None
    report: Path | None
    dry_run: bool
    threads: int
    layout: FileLayout
    progress: Progress
    metric: Metric | TaskMetric | None = None
    sequential: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        self.progress(stage, "")
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(stage, 0.0) + time.perf_counter() - start
            self.seconds[stage] = round(spent, 3)

    def check_paths(self, recipe: list[Path]) -> None:
        if not self.model.exists():
            raise InputError(f"{self.model}: no such file")
        if not self.model.is_file():
            raise InputError(f"{self.model}: is no file")
        given = [self.model, *recipe]
        if self.calibration is not None:
            given.append(self.calibration)
        self.check_outputs(given)

    def check_outputs(self, given: Sequence[Path]) -> None:
        """Refuses outputs that cannot be written or that are one of the files `given`."""
        if not self.dry_run:
            check_output(self.output, given)
        if self.report is not None:
            check_output(self.report, [*given, self.output])

    def run(
        self,
        source: Source,
        target: Target,
        settings: dict[str, WeightSettings | None],
        command: str,
        label: dict[str, Any],
    ) -> Report:
        from toolkit.choose_settings import choose_settings

        notes = list(source.notes)
        notes += [f"{name}: holds NaN or infinity, kept lossless" for name in source.odd]
        choice = choose_settings(
            self, source, target, settings, self.metric, self.report is not None
        )
        notes += choice.notes
        target, result = choice.target, choice.result
        original_bytes = source.num_bytes
        with self.timed("encode"), smaller_blocks_mapped():
            finished, expected, rows = self._encode(source, choice)
        release_memory()
        notes += finished.notes
        with self.timed("write"), self._place() as temporary:
            size = self._write(finished, temporary)
            del finished.model, source.model  # as large as the file
            if size >= original_bytes and not self.dry_run:
                notes.append("the result would not be smaller than the original: nothing written")
            with self.timed("verify"), smaller_blocks_mapped():
                try:
                    fidelity, judged, stock = self._verify(
                        temporary, choice, finished, expected, notes
                    )
                except VerificationError as error:
                    text = str(error).replace(str(temporary), str(self.output))
                    raise VerificationError(text) from error
            reached = _reached(target, judged, size)
            if target.kind == "min_sqnr" and target.is_default and result and not result.steps:
                reached = True
            written = size < original_bytes and not self.dry_run
            if written:
                publish(temporary, self.output)
        self.seconds["total"] = round(sum(v for k, v in self.seconds.items() if k != "verify"), 3)
        trace = result.trace if result is not None else []
        if result is not None and result.steps is not None:
            _correct(trace, result, size, judged)
        summary = Report(
            str(self.model),
            str(self.output) if written else None,
            original_bytes,
            size,
            target.text + _behind(choice, judged),
            reached,
            written,
            fidelity,
            stock,
            result.fidelity if result is not None else None,
            rows,
            trace,
            label,
            command,
            dict(self.seconds),
            _unique(notes),
            finished.functions,
            versions(),
        )
        if self.report is not None:
            from toolkit.output_file import write_text
            from toolkit.report_html import render

            write_text(self.report, render(summary))
        return summary

    def _encode(
        self, source: Source, choice: Choice
    ) -> tuple[Finished, dict[str, Expected], list[TensorRow]]:
        from passes.errors import SettingsError
        from toolkit.pipeline import finish, fit_all, keep_factors
        from toolkit.tensor_rows import tensor_rows
        from toolkit.verify import expected_weights

        decided: list[str] = []
        fixed = choice.settings
        fitted = fit_all(source, fixed, decided, choice.moments, choice.known)
        quality = weight_quality(source, fitted)
        fitted, notes = keep_factors(source.model, fitted)
        expected = expected_weights(fitted)
        codings = {name: how.coding for name, how in fixed.items()}
        try:
            finished = finish(source.model, fitted, self.layout, codings)
        except SettingsError as error:
            raise InputError(f"{self.model}: {error}") from error
        finished.notes[:0] = [*decided, *notes]
        rows = tensor_rows(finished, fitted, quality)
        source.weights.clear()
        return finished, expected, rows

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """Where the file is written before it is verified."""
        if self.dry_run:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / self.output.name
        else:
            with beside(self.output) as temporary:
                yield temporary

    def _write(self, finished: Finished, temporary: Path) -> int:
        from passes.errors import ModelError
        from passes.model_file import write_model

        try:
            return int(write_model(finished.model, temporary))
        except ModelError as error:
            place = temporary.parent if self.dry_run else self.output
            raise OutputError(str(error).replace(str(temporary), str(place))) from error

    def _verify(
        self,
        path: Path,
        choice: Choice,
        finished: Finished,
        expected: dict[str, Expected],
        notes: list[str],
    ) -> tuple[Fidelity, Fidelity, Fidelity | None]:
        """Fidelity of the outputs, the same in the search's own measure, and on stock ONNX
        Runtime where that was run."""
        from toolkit.padding import without_padding
        from toolkit.verify import (
            check_weights,
            run_compressed,
            run_original,
            run_parts,
            run_stock,
            score,
        )

        def compared(found: list[dict[str, Any]]) -> Fidelity:
            return compare_outputs(original, without_padding(found, feeds), choice.ignored)

        release_memory()
        feeds, encoded = choice.feeds, {row.name for row in finished.encoded}
        kept = [name for name in expected if name not in encoded]
        original = without_padding(run_original(self.model, feeds, self.threads), feeds)
        release_memory()
        if not encoded:
            unchanged = compared(run_stock(path, feeds, self.threads))
            return unchanged, unchanged, None
        check_weights(path, expected, kept, self.threads)
        release_memory()
        parted = choice.judged.parted
        parts = run_parts(path, parted, feeds, self.threads) if parted else None
        if parts is not None:  # which has the outputs as well
            runs = [{name: run[name] for name in original[0]} for run in parts]
        else:
            runs = run_compressed(path, feeds, self.threads)
        fidelity = judged = compared(runs)
        if parts is not None:
            seen = without_padding(choice.judged.of(parts), feeds)
            judged = compare_outputs(choice.reference, seen, choice.ignored)
        elif parted:
            if choice.result is not None and choice.result.fidelity is not None:
                judged = choice.result.fidelity  # the file does not show them, the search saw them
        elif choice.judged.kinds:
            seen = without_padding(choice.judged.of(runs), feeds)
            judged = compare_outputs(choice.judged.of(original), seen, choice.ignored)
        if choice.score is not None:
            fidelity.score = judged.score = score(path, choice.score, self.threads)
            original_score = choice.target.baseline
            notes.append(
                f"metric {choice.score.text}: {original_score:.6g} -> {fidelity.score:.6g}"
            )
        if choice.moments and not _same(choice.fitted, feeds):
            notes += self._other_fidelities(path, choice, fidelity)
        stock = None
        if finished.functions:
            del runs, parts  # the outputs of a language model are larger than the model
            release_memory()
            few = slice(STOCK_FEEDS)
            found = without_padding(run_stock(path, feeds[few], self.threads), feeds[few])
            stock = compare_outputs(original[few], found, choice.ignored)
        return fidelity, judged, stock

    def _other_fidelities(self, path: Path, choice: Choice, last: Fidelity) -> list[str]:
        """What the file does on data that it was fitted to, as much of it as the last word was had
        on, and on data that the search measured on; beside `last`."""
        from toolkit.padding import without_padding
        from toolkit.verify import run_compressed, run_original

        parts = {"fitted to": choice.fitted[: len(choice.feeds)]}
        if not _same(choice.searched, choice.feeds):
            parts["searched on"] = choice.searched
        found = []
        for words, feeds in parts.items():
            original, after = (
                without_padding(runs, feeds)
                for runs in (
                    run_original(self.model, feeds, self.threads),
                    run_compressed(path, feeds, self.threads),
                )
            )
            fidelity = compare_outputs(original, after, choice.ignored)
            found.append(f"{fidelity.sqnr_db:.2f} dB on data that was {words}")
        return [
            f"output SQNR: {', '.join(found)}, {last.sqnr_db:.2f} dB on data kept apart from it"
        ]


def weight_quality(source: Source, fitted: dict[str, Any]) -> dict[str, float]:
    """SQNR in dB of every fitted weight itself."""
    import numpy as np

    from passes.schemes import decode
    from toolkit.pipeline import CHUNK

    quality = {}
    for name, parameters in fitted.items():
        before = source.weights[name].array()
        if before.dtype.kind in "iu" or name in source.odd:
            quality[name] = math.inf
            continue
        signal = noise = 0.0
        after = decode(parameters).reshape(-1)
        flat = before.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK].astype(np.float64)
            error = after[start : start + CHUNK].astype(np.float64) - part
            signal += float(np.vdot(part, part))
            noise += float(np.vdot(error, error))
        quality[name] = 10 * math.log10(signal / noise) if noise and signal else math.inf
    return quality


def _reached(target: Target, fidelity: Fidelity, size: int) -> bool:
    if target.kind == "target_size":
        return size <= target.value
    return target.kind == "fixed" or target.meets_fidelity(fidelity)


def _behind(choice: Choice, judged: Fidelity) -> str:
    """What is to be said of a target that was judged by what is behind the outputs."""
    text = choice.judged.text
    return f", {text} ({judged.sqnr_db:.1f} dB)" if text else ""


def _correct(trace: list[TracePoint], result: SearchResult, size: int, fidelity: Fidelity) -> None:
    """Brings estimated sizes to the scale of the file that was really written."""
    chosen = [p for p in trace if p.knob == result.knob and not p.measured]
    offset = size - chosen[-1].num_bytes if chosen else 0.0
    for point in trace:
        if not point.measured:
            point.num_bytes = max(point.num_bytes + offset, 1.0)
    judged = result.fidelity or fidelity
    trace.append(
        TracePoint(
            "result",
            result.knob,
            size,
            True,
            judged.sqnr_db,
            judged.max_relative_error,
            judged.healthy,
        )
    )


def _same(first: Sequence[Feed], second: Sequence[Feed]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


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


def _command(job: _Job, given: GivenSettings, targets: Mapping[str, Any]) -> str:
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


def _unique(notes: list[str]) -> list[str]:
    return list(dict.fromkeys(notes))
