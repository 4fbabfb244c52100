# SPDX-License-Identifier: Apache-2.0
"""`scan`: each weight alone under each scheme, its bytes against the error in the outputs, and the
recipe that follows from it.

Errors of single weights add up as noise power does, as far as they are small and independent. So
the recipe is the one of fewest bytes whose predicted noise stays within a target: for one price of
noise every weight takes its cheapest scheme, and the price is halved until the sum fits.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from toolkit.errors import InputError
from toolkit.output_file import check_output, write_text
from toolkit.targets import DEFAULT_MIN_SQNR_DB

if TYPE_CHECKING:
    from passes.select_weights import Weight
    from toolkit.pipeline import Source

Stages = tuple[Any, ...]

DEFAULT_SCHEMES: tuple[Stages, ...] = (
    *(({"uniform": {"relative_step": round(2.0**-exponent, 4)}},) for exponent in range(-1, 5)),
    ({"uniform": {"bits": 8, "granularity": "row"}},),
    ({"codebook": {"entries": 16}},),
)
"""What is tried where nothing else is given: uniform steps of 2 to 1/16 of the root mean square, 8
bits with a scale for each channel, and 16 values by k-means."""

MIN_SIZE = 256
"""Smaller weights are not scanned; they stay as they are in the recipe."""


@dataclass(frozen=True)
class ScanPoint:
    """One weight under one scheme: `num_bytes` estimated, `weight_sqnr_db` of its values,
    `sqnr_db` of the worst output with this weight alone changed; `problem` where it cannot be
    fitted."""

    weight: str
    scheme: str
    stages: Stages
    num_bytes: float
    weight_sqnr_db: float
    sqnr_db: float
    healthy: bool = True
    problem: str = ""


@dataclass
class Scan:
    """All points of a model, and the recipe chosen from them, with what it predicts."""

    model: str
    points: list[ScanPoint]
    sizes: dict[str, int]
    min_sqnr_db: float
    chosen: dict[str, ScanPoint]
    notes: list[str]

    @property
    def predicted_bytes(self) -> float:
        """Bytes of the scanned weights under the recipe."""
        return sum(point.num_bytes for point in self.chosen.values())

    @property
    def predicted_sqnr_db(self) -> float:
        """Of the outputs, if noises add up."""
        return _decibel(sum(_noise(point) for point in self.chosen.values()))

    def recipe_text(self) -> str:
        """The recipe as YAML: a rule for each weight."""
        head = (
            f"# From a scan of {Path(self.model).name}: {self.predicted_bytes:.0f} bytes and "
            f"{self.predicted_sqnr_db:.1f} dB predicted.\n"
        )
        rules = [
            {"regex": re.escape(name), "settings": {"stages": json.loads(json.dumps(p.stages))}}
            for name, p in self.chosen.items()
        ]
        recipe = {"version": 1, "rules": rules, "default": {"scheme": "keep"}}
        return head + yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=100)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["predicted_bytes"] = self.predicted_bytes
        values["predicted_sqnr_db"] = self.predicted_sqnr_db
        return values


def scan(
    model: str | os.PathLike[str],
    *,
    schemes: Sequence[Stages] | None = None,
    min_sqnr: float = DEFAULT_MIN_SQNR_DB,
    min_size: int = MIN_SIZE,
    calibration: str | os.PathLike[str] | None = None,
    recipe: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    progress: Callable[[str, str], None] | None = None,
) -> Scan:
    """Measures every weight of at least `min_size` elements under every scheme.

    Args:
        model: path of the ONNX file.
        schemes: lists of stages (`passes.stages`); DEFAULT_SCHEMES where None.
        min_sqnr: what the recipe shall keep, in dB.
        calibration: real inputs; made from the signature where None.
        recipe: path of a recipe to write.
        report: path of an HTML page to write.
        jobs: threads.
        progress: called with a stage and a detail.

    Raises:
        InputError: something given cannot be used.
    """
    from passes.errors import SchemeError
    from passes.stages import scheme_of
    from toolkit.pipeline import read_source
    from toolkit.quantiser_search import prepare

    path, tell = Path(model), progress or (lambda stage, detail: None)
    tried = tuple(DEFAULT_SCHEMES if schemes is None else schemes)
    for stages in tried:
        try:
            scheme_of(stages)
        except SchemeError as error:
            raise InputError(f"schemes: {error}") from error
    outputs = [Path(given) for given in (recipe, report) if given is not None]
    for given in outputs:
        check_output(given, [path])
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    tell("read", "")
    source = read_source(path)
    names = [n for n, w in source.weights.items() if _is_scanned(source, w, min_size)]
    if not names:
        raise InputError(f"{path}: no weight of {min_size} or more elements to scan")
    tell("inputs", "")
    prepared = prepare(source, names, None if calibration is None else Path(calibration), jobs or 0)
    points = []
    for index, name in enumerate(names):
        for stages in tried:
            tell("scan", f"weight {index + 1} of {len(names)}: {name}")
            points.append(_measure(source.weights[name], stages, prepared))
    sizes = {name: source.weights[name].num_bytes for name in names}
    chosen, reached = choose(points, sizes, min_sqnr)
    notes = list(prepared.notes)
    if not reached:
        notes.append(f"no choice of these schemes is predicted to keep {min_sqnr:g} dB")
    found = Scan(str(path), points, sizes, min_sqnr, chosen, notes)
    if recipe is not None:
        write_text(Path(recipe), found.recipe_text())
    if report is not None:
        from toolkit.scan_page import render_scan

        write_text(Path(report), render_scan(found))
    return found


def choose(
    points: Sequence[ScanPoint], sizes: Mapping[str, int], min_sqnr: float
) -> tuple[dict[str, ScanPoint], bool]:
    """The scheme of each weight: fewest bytes with a predicted noise within `min_sqnr` dB.

    Weights for which nothing is both usable and smaller than their data are left out. The second
    value says whether the noise fits; where it does not, every weight has its least noise.
    """
    usable: dict[str, list[ScanPoint]] = {}
    for point in points:
        if not point.problem and point.healthy and point.num_bytes < sizes[point.weight]:
            usable.setdefault(point.weight, []).append(point)
    budget = 10 ** (-min_sqnr / 10)
    most = sum(min(map(_noise, own)) for own in usable.values())
    if most > budget:
        return {name: min(own, key=_noise) for name, own in usable.items()}, False
    low, high = -40.0, 400.0  # exponents of the price of noise, bytes per unit, base 2
    for _ in range(60):
        middle = (low + high) / 2
        if sum(map(_noise, _cheapest(usable, 2.0**middle).values())) <= budget:
            high = middle
        else:
            low = middle
    return _cheapest(usable, 2.0**high), True


def _cheapest(usable: Mapping[str, Sequence[ScanPoint]], price: float) -> dict[str, ScanPoint]:
    return {
        name: min(own, key=lambda p: p.num_bytes + price * _noise(p))
        for name, own in usable.items()
    }


def _noise(point: ScanPoint) -> float:
    """Noise power as a share of the signal's."""
    if math.isinf(point.sqnr_db):
        return 0.0 if point.sqnr_db > 0 else math.inf
    return float(10 ** (-point.sqnr_db / 10))


def _decibel(noise: float) -> float:
    return -10 * math.log10(noise) if noise > 0 else math.inf


def _is_scanned(source: Source, weight: Weight, min_size: int) -> bool:
    floats = weight.role not in ("integer", "minor") and weight.name not in source.odd
    return floats and weight.num_elements >= min_size


def _measure(weight: Weight, stages: Stages, prepared: Any) -> ScanPoint:
    from passes.errors import SchemeError
    from passes.schemes import FitContext
    from passes.stages import scheme_of

    array = weight.array()
    point = ScanPoint(weight.name, stages_text(stages), stages, math.inf, -math.inf, -math.inf)
    try:
        context = FitContext(channel_axis=weight.channel_axis)
        fitted = scheme_of(stages).fit(array, context)
    except SchemeError as error:
        return replace(point, problem=str(error))
    value = fitted.decode()
    fidelity = prepared.fidelity_with({weight.name: value})
    return replace(
        point,
        num_bytes=fitted.bits() / 8,
        weight_sqnr_db=_sqnr(array, value),
        sqnr_db=fidelity.sqnr_db,
        healthy=fidelity.healthy,
    )


def _sqnr(before: Any, after: Any) -> float:
    import numpy as np

    signal = before.astype(np.float64).reshape(-1)
    noise = after.astype(np.float64).reshape(-1) - signal
    power = float(np.vdot(signal, signal))
    return _decibel(float(np.vdot(noise, noise)) / power) if power else math.inf


def stages_text(stages: Stages) -> str:
    """A list of stages in short: `prune (fraction 0.5) · uniform (bits 4)`."""
    parts = []
    for stage in stages:
        name, options = (stage, {}) if isinstance(stage, str) else next(iter(stage.items()))
        text = ", ".join(
            f"{key.replace('_', ' ')} {value}" for key, value in (options or {}).items()
        )
        parts.append(f"{name} ({text})" if text else name)
    return " · ".join(parts)
