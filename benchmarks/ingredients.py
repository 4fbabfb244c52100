# SPDX-License-Identifier: Apache-2.0
"""The ingredients of calibrated compression, each switched off in turn, as recipes of one curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from passes.model_file import write_model
from passes.settings import WeightSettings
from toolkit.pipeline import FileLayout, finish, fit_all, fold_layers, read_source
from toolkit.sweep_folder import SweepTask
from toolkit.sweep_point import PreparedSweep, prepared_sweep

INGREDIENTS = (
    "all",
    "no bias correction",
    "no rate in the choice",
    "no steps by feature",
    "no rate, no steps by feature",
    "no rate, errors by output",
    "and a trellis",
    "no second sweep",
    "no compensation",
    "no measured sensitivity",
    "bare codec",
)
"""`and a trellis` is one more than all; `bare codec`: one step relative to each weight's RMS,
nearest symbols, the coder alone."""


def made_ready(model: Path, calibration: Path, folder: Path) -> PreparedSweep:
    """Moments and sensitivities of a model."""
    folder.mkdir(exist_ok=True)
    return prepared_sweep(SweepTask(str(model), str(calibration), None, None, str(folder), 2))


def write_variant(sweep: PreparedSweep, ingredient: str, knob: float, output: Path) -> int:
    """Writes the file of a model at a knob with an ingredient switched off; returns its bytes."""
    from dataclasses import replace

    from toolkit.fitting import CalibratedFitting

    fitting = sweep.prepared.fitting
    if not isinstance(fitting, CalibratedFitting):
        raise TypeError("ingredients need calibration")
    allocation = sweep.allocation
    if ingredient in ("no measured sensitivity", "bare codec"):
        allocation = replace(allocation, sensitivity={}, is_rate_aware=False)
    source = read_source(sweep.source.path)
    fold_layers(source)
    settings = dict(sweep.fixed)
    for name, step in allocation.steps(knob).items():
        settings[name] = _changed(fitting.settings(name, step), ingredient)
    fitted = fit_all(source, settings, [], fitting.moments)
    finished = finish(source.model, {**fitted}, FileLayout("never"))
    return int(write_model(finished.model, output))


def _changed(settings: WeightSettings, ingredient: str) -> WeightSettings:
    """Settings of a weight without an ingredient."""
    if settings.stages is None:
        return settings
    options: Mapping[str, object] = settings.stages[0]["compensated"]
    step = {"step": options["step"]}
    if ingredient == "bare codec":
        return WeightSettings(**step)
    if ingredient == "no compensation":
        return WeightSettings(stages=({"rate_distortion": step},))
    changes: dict[str, dict[str, object]] = {
        "no bias correction": {"centred": False},
        "no rate in the choice": {"rate_weight": 0.0},
        "no rate, no steps by feature": {"rate_weight": 0.0, "adaptive": False},
        "no rate, errors by output": {"rate_weight": 0.0, "by_output": True},
        "no steps by feature": {"adaptive": False},
        "no second sweep": {"sweeps": 0},
    }
    scheme = "compensated_trellis" if ingredient == "and a trellis" else "compensated"
    return WeightSettings(stages=({scheme: {**options, **changes.get(ingredient, {})}},))
