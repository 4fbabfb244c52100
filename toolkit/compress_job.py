# SPDX-License-Identifier: Apache-2.0
"""What `compress` does with a model and its settings: choose, encode, write, verify, report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError, OutputError, VerificationError
from toolkit.fidelity import Fidelity
from toolkit.memory import release_memory, smaller_blocks_mapped
from toolkit.output_file import beside, check_output, publish
from toolkit.progress import Progress
from toolkit.report import Report, TensorRow
from toolkit.search import SearchResult, TracePoint
from toolkit.targets import Target
from toolkit.versions import versions

if TYPE_CHECKING:
    from passes.settings import WeightSettings
    from toolkit.choose_settings import Choice
    from toolkit.metrics import Metric
    from toolkit.pipeline import FileLayout, Finished, Source
    from toolkit.task_metrics import TaskMetric
    from toolkit.verify import Expected


@dataclass
class Job:
    """One run of `compress`: what was given, and the seconds of its stages."""

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
            check_output(self.report, given, [self.output])

    def run(
        self,
        source: Source,
        target: Target,
        settings: dict[str, WeightSettings | None],
        command: str,
        label: dict[str, Any],
    ) -> Report:
        from toolkit.choose_settings import choose_settings
        from toolkit.judge_file import judge_file

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
                    fidelity, judged, stock = judge_file(
                        self.model, temporary, choice, finished, expected, notes, self.threads
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
        from toolkit.weight_quality import weight_quality

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


def _unique(notes: list[str]) -> list[str]:
    return list(dict.fromkeys(notes))
