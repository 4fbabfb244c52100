# SPDX-License-Identifier: Apache-2.0
"""Computes points of a sweep: what is common to all of them once, then a file for each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from toolkit.allocation import Allocation
from toolkit.calibration_callable import feeds_from_callable, is_callable_name
from toolkit.fitting import CalibratedFitting, PlainFitting, chosen
from toolkit.given_settings import METADATA_KEY, GivenSettings
from toolkit.metrics import Metric
from toolkit.output_file import write_text
from toolkit.prepare_model import Prepared, prepare, searchable
from toolkit.progress import Progress, silent
from toolkit.quantiser_search import CALIBRATED_WORK, REFERENCE_KNOB, SENSITIVITY_WORK
from toolkit.rate_curve import RateCurve, rate_curve
from toolkit.report import to_json
from toolkit.sensitivity import measure_sensitivity
from toolkit.sweep_folder import SweepPoint, SweepTask, point_file, read_object

if TYPE_CHECKING:
    from passes.settings import WeightSettings
    from toolkit.pipeline import Source


@dataclass
class PreparedSweep:
    """A model with what all points share; `facts` are plain values about it."""

    source: Source
    prepared: Prepared
    fixed: dict[str, WeightSettings]
    allocation: Allocation
    folder: Path
    facts: dict[str, Any]


def digest(task: SweepTask) -> str:
    """Of the model's files, the calibration data and the metric."""
    from toolkit.pipeline import read_source

    found = hashlib.sha256(json.dumps([task.calibration is None, task.metric]).encode())
    model = Path(task.model)
    paths = [model, *read_source(model).external]
    for given in (task.calibration, task.labels):
        if given is None:
            continue
        if is_callable_name(given):
            for feed in feeds_from_callable(given):
                for name, array in sorted(feed.items()):
                    found.update(f"{name} {array.dtype} {array.shape}".encode())
                    found.update(repr(array.tolist()).encode() if array.dtype == object
                                 else np.ascontiguousarray(array).data)  # fmt: skip
        elif Path(given).is_dir():
            paths += sorted(entry for entry in Path(given).rglob("*") if entry.is_file())
        else:
            paths.append(Path(given))
    for path in paths:
        found.update(path.name.encode())
        if path.is_file():
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


_READY: dict[SweepTask, PreparedSweep] = {}
"""The one that was asked for last."""


def prepared_sweep(task: SweepTask, progress: Progress = silent) -> PreparedSweep:
    """The model of a sweep made ready, once in each process. Raises `InputError`."""
    if task not in _READY:
        _READY.clear()
        _READY[task] = _prepare(task, progress)
    return _READY[task]


def _prepare(task: SweepTask, progress: Progress) -> PreparedSweep:
    from toolkit.choose_settings import places_of
    from toolkit.compress_model import make_metric
    from toolkit.given_settings import given_settings
    from toolkit.moment_store import moments_of
    from toolkit.pipeline import fold_layers, read_source

    source = read_source(Path(task.model))
    fold_layers(source)
    assigned = given_settings(None, None, False).assign(source, False)
    names = searchable(source, assigned)
    fixed = {name: how for name, how in assigned.items() if how is not None}
    calibration = None if task.calibration is None else Path(task.calibration)
    metric = make_metric(task.metric, task.labels, calibration)
    calibrated = calibration is not None
    places = places_of(source, names) if calibrated else {}
    extra = sorted({place.bias for place in places.values()} - set(names))
    prepared = prepare(source, names, calibration, task.threads, metric, calibrated, extra=extra)
    large = [name for name in names if source.weights[name].role != "minor"]
    if calibrated:
        store = moments_of(
            source, prepared.fitted, large, task.threads, lambda text: progress("moments", text)
        )
        prepared.notes.extend(
            f"{name}: {why}: rounded without compensation" for name, why in store.missing.items()
        )
        prepared.fitting = CalibratedFitting(
            source.weights, store, task.threads, places, prepared.extras
        )
    curves = {name: rate_curve(array) for name, array in prepared.arrays.items()}
    roles = {name: source.weights[name].role for name in curves}
    folder = Path(task.folder)
    sensitivity = _sensitivity(folder, prepared, curves, roles, progress)
    allocation = Allocation(curves, roles, sensitivity, prepared.fitting.is_rate_aware)
    facts = {
        "original_bytes": source.num_bytes,
        "baseline": prepared.checked.baseline if metric is not None else None,
        "notes": list(dict.fromkeys([*source.notes, *prepared.notes])),
        "has_user_metric": isinstance(metric, Metric),
    }
    write_text(folder / "facts.json", to_json(facts))
    return PreparedSweep(source, prepared, fixed, allocation, folder, facts)


def _sensitivity(
    folder: Path,
    prepared: Prepared,
    curves: Mapping[str, RateCurve],
    roles: Mapping[str, str],
    progress: Progress,
) -> dict[str, float]:
    """How much each weight matters, measured once and kept."""
    place = folder / "sensitivity.json"
    kept = read_object(place)
    if kept is not None and set(kept) <= set(curves):
        return kept
    steps = Allocation(curves, roles).steps(REFERENCE_KNOB)
    together = prepared.fidelity_with(PlainFitting().values(prepared.arrays, steps, draft=True))
    is_aware = prepared.fitting.is_rate_aware
    found, measured = measure_sensitivity(
        {name: curve for name, curve in curves.items() if roles[name] != "minor"},
        steps,
        prepared.alone,
        together,
        prepared.runs_within(CALIBRATED_WORK if is_aware else SENSITIVITY_WORK),
        lambda text: progress("sensitivity", text),
        by_step=is_aware,
        workers=prepared.fitting.workers,
    )
    sensitivity = found if measured > 1 else {}
    write_text(place, json.dumps(sensitivity))
    return sensitivity


def measure_point(sweep: PreparedSweep, knob: float) -> tuple[SweepPoint, str]:
    """The point at `knob`, and its recipe."""
    from passes.settings import Recipe
    from toolkit.fidelity import compare_outputs
    from toolkit.padding import without_padding
    from toolkit.pipeline import FileLayout, finish, set_initializers

    start = time.perf_counter()
    prepared, fitting = sweep.prepared, sweep.prepared.fitting
    steps = sweep.allocation.steps(knob)
    values = fitting.values(prepared.arrays, steps, draft=False)
    plan = chosen(fitting, sweep.fixed, steps)
    settings = {name: fitting.settings(name, step) for name, step in steps.items()}
    rules = _recipe({**sweep.fixed, **settings})
    model = sweep.source.model.clone()
    set_initializers(model, {name: values[name] for name in values if name not in steps})
    given = GivenSettings(Recipe.parse(json.dumps(rules)), None, None, False)
    model.metadata_props[METADATA_KEY] = given.metadata()
    num_bytes = finish(model, plan, FileLayout()).num_bytes
    found = prepared.checked.fidelity_with(values)
    feeds = prepared.fitted[: len(prepared.checked.feeds)]
    every = {**prepared.extras, **prepared.arrays}
    before, after = (
        without_padding(prepared.judged.of(prepared.evaluator.run(v, feeds)), feeds)
        for v in (every, {**every, **values})
    )
    fitted = compare_outputs(before, after, prepared.ignored)
    head = f"# From a sweep: {num_bytes} bytes, {found.sqnr_db:.2f} dB.\n"
    recipe = head + yaml.safe_dump(rules, sort_keys=False, default_flow_style=None, width=100)
    point = SweepPoint(
        knob,
        num_bytes,
        found.sqnr_db,
        fitted.sqnr_db,
        found.cosine,
        found.top1_agreement,
        found.healthy,
        found.score,
        str(point_file(sweep.folder, knob, "yaml")),
        round(time.perf_counter() - start, 3),
    )
    return point, recipe


def _recipe(settings: Mapping[str, WeightSettings]) -> dict[str, Any]:
    """A recipe with a rule for every weight: `toolkit compress --recipe` with the same calibration
    makes the file of this point again."""
    import re

    rules = [
        {
            "regex": re.escape(name),
            "settings": json.loads(how.model_dump_json(exclude_defaults=True)),
        }
        for name, how in settings.items()
    ]
    return {"version": 1, "rules": rules, "default": {"scheme": "keep"}}
