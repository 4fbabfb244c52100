# SPDX-License-Identifier: Apache-2.0
"""`sweep`: the whole curve of bytes against quality of a model, each point with its recipe.

One knob coarsens all weights together; each of its values is a point, independent of the others,
so points are computed side by side, also on other machines (joblib's backends). Every point is kept
as soon as it is there: a sweep that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, one_line
from toolkit.kept_folders import cache_folder
from toolkit.ort_session import thread_count
from toolkit.output_file import check_output, write_text
from toolkit.progress import Progress, silent
from toolkit.sweep_folder import (
    SweepPoint,
    SweepTask,
    keep_point,
    open_folder,
    read_object,
    read_point,
)

VERSION = 2
"""Of what a point is: another one does not find what an earlier one has kept."""
FIRST, LAST, POINTS = -5.0, 1.5, 14
"""Knobs by default: log2 of a typical step relative to the root mean square of the weights."""
BACKENDS = ("loky", "threading", "sequential", "dask", "ray")


@dataclass
class Sweep:
    """All points of a model, the finest first. `folder` holds them and their recipes; `baseline` is
    the original's metric; `num_kept` of the points were there already."""

    model: str
    original_bytes: int
    points: list[SweepPoint]
    folder: str
    metric: str | None
    baseline: float | None
    num_kept: int
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def sweep(
    model: str | os.PathLike[str],
    *,
    knobs: Sequence[float] | None = None,
    points: int | None = None,
    calibration: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    backend: str = "loky",
    progress: Progress | None = None,
) -> Sweep:
    """Computes the points that are not kept yet, and gives all of them.

    Args:
        model: path of the ONNX file.
        knobs: log2 of a typical step relative to the root mean square; spread evenly where None.
        points: how many, where `knobs` is None.
        calibration, metric, labels: as `compress` takes them.
        folder: where points and recipes are kept; in the user's cache, by the hash of model, data
            and metric, where None.
        report: path of an HTML page with table and picture.
        jobs: points that are computed side by side.
        backend: joblib's: "loky" (processes), "threading", "sequential", and for more than one
            machine "dask" or "ray", whose client or cluster the environment names.
        progress: called with a stage and a detail.

    Raises:
        InputError: something given cannot be used.
        OutputError: the folder or the report cannot be written.
    """
    path, tell = Path(model), progress or silent
    wanted = _knobs(knobs, points)
    if jobs < 1:
        raise InputError(f"--jobs: expected at least 1, found {jobs}")
    if backend not in BACKENDS:
        raise InputError(f"--backend: expected one of {', '.join(BACKENDS)}, found {backend}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    given = [path] if calibration is None else [path, Path(calibration)]
    if report is not None:
        check_output(Path(report), given)
    from toolkit.sweep_point import digest, prepared_sweep

    task = SweepTask(
        str(path.resolve()),
        None if calibration is None else _absolute(calibration),
        metric,
        None if labels is None else _absolute(labels),
        "",
        max(1, thread_count(None) // jobs),
    )
    tell("read", "")
    name = hashlib.sha256(f"{VERSION} {digest(task)}".encode()).hexdigest()[:24]
    home = Path(folder) if folder is not None else cache_folder("sweeps") / name
    task = SweepTask(**{**asdict(task), "folder": str(home.resolve())})
    open_folder(home, name)
    found = {knob: kept for knob in wanted if (kept := read_point(home, knob)) is not None}
    num_kept = len(found)
    missing = [knob for knob in wanted if knob not in found]
    tell("inputs", "")
    facts = None if missing else read_object(home / "facts.json")
    prepared = prepared_sweep(task, tell) if facts is None else None
    for number, point in enumerate(_computed(task, missing, jobs, backend), 1):
        found[point.knob] = point
        tell("sweep", f"point {number} of {len(missing)}: {point.num_bytes:,} bytes")
    facts = facts or (prepared.facts if prepared is not None else {})
    result = Sweep(
        str(path),
        int(facts["original_bytes"]),
        [found[knob] for knob in wanted],
        str(home),
        metric,
        facts["baseline"] if metric is not None else None,
        num_kept,
        list(facts["notes"]),
    )
    if report is not None:
        from toolkit.sweep_page import render_sweep

        write_text(Path(report), render_sweep(result))
    return result


def compute_point(task: SweepTask, knob: float) -> SweepPoint:
    """One point, which is kept before it is returned. Runs in a worker."""
    from toolkit.sweep_point import measure_point, prepared_sweep

    kept = read_point(Path(task.folder), knob)  # another worker may have been faster
    if kept is not None:
        return kept
    point, recipe = measure_point(prepared_sweep(task), knob)
    keep_point(Path(task.folder), point, recipe)
    return point


def _computed(task: SweepTask, knobs: Sequence[float], jobs: int, backend: str) -> Any:
    """The points as they become ready."""
    if not knobs:
        return iter(())
    if jobs == 1 and backend in ("loky", "threading", "sequential"):
        return (compute_point(task, knob) for knob in knobs)
    import joblib

    _register(backend)
    with joblib.parallel_config(backend=backend):
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered" if backend in (
            "loky", "threading") else "list")  # fmt: skip
        return parallel(joblib.delayed(compute_point)(task, knob) for knob in knobs)


def _register(backend: str) -> None:
    """Makes a cluster's backend known to joblib. Raises `InputError` without its package."""
    package = {"dask": "distributed", "ray": "ray"}.get(backend)
    if package is None:
        return
    try:
        module = importlib.import_module(package if backend == "dask" else "ray.util.joblib")
    except ImportError as error:
        raise InputError(f"--backend {backend}: the package {package} is not installed") from error
    if backend == "ray":
        module.register_ray()
        return
    try:
        module.get_client()
    except ValueError:  # none yet: one for the cluster that the environment names
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        if address is None:
            raise InputError(
                "--backend dask: no scheduler, set DASK_SCHEDULER_ADDRESS or make a client"
            ) from None
        try:
            module.Client(address)
        except OSError as error:
            raise InputError(f"--backend dask: {address}: {one_line(error)}") from error


def _knobs(knobs: Sequence[float] | None, points: int | None) -> list[float]:
    from toolkit.allocation import COARSEST_AWARE, FINEST

    if knobs is not None and points is not None:
        raise InputError("--knob and --points: give only one of them")
    if knobs:
        if wrong := [k for k in knobs if not FINEST <= k <= COARSEST_AWARE]:
            raise InputError(
                f"--knob: expected {FINEST:g} to {COARSEST_AWARE:g}, found {wrong[0]:g}"
            )
        return sorted(set(knobs))
    number = POINTS if points is None else points
    if number < 2:
        raise InputError(f"--points: expected at least 2, found {number}")
    return [round(FIRST + (LAST - FIRST) * i / (number - 1), 6) for i in range(number)]


def _absolute(given: str | os.PathLike[str]) -> str:
    from toolkit.calibration_callable import is_callable_name

    return os.fspath(given) if is_callable_name(given) else str(Path(given).resolve())
