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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from toolkit.errors import InputError
from toolkit.ort_session import thread_count
from toolkit.output_file import check_output, write_text
from toolkit.progress import Progress, silent
from toolkit.scan_points import ScanPoint, Stages, decibel, measured, noise_of
from toolkit.scan_sparsity import PruningLadder, divided
from toolkit.targets import DEFAULT_MIN_SQNR_DB

if TYPE_CHECKING:
    from passes.select_weights import Weight
    from toolkit.pipeline import Source

DEFAULT_SCHEMES: tuple[Stages, ...] = (
    *(({"uniform": {"relative_step": round(2.0**-exponent, 4)}},) for exponent in range(-1, 5)),
    ({"uniform": {"bits": 8, "granularity": "row"}},),
    ({"codebook": {"entries": 16}},),
)
"""What is tried where nothing else is given: uniform steps of 2 to 1/16 of the root mean square, 8
bits with a scale for each channel, and 16 values by k-means."""

MIN_SIZE = 256
"""Smaller weights are not scanned; they stay as they are in the recipe."""


@dataclass
class Scan:
    """All points of a model, and the recipe chosen from them, with what it predicts: for
    `min_sqnr_db` or for a total `sparsity`, the other one being None."""

    model: str
    points: list[ScanPoint]
    sizes: dict[str, int]
    min_sqnr_db: float | None
    chosen: dict[str, ScanPoint]
    notes: list[str]
    sparsity: float | None = None

    @property
    def target_text(self) -> str:
        """What the recipe is for."""
        if self.sparsity is not None:
            return f"a sparsity of {self.sparsity:.4g}"
        return f"{self.min_sqnr_db:g} dB"

    @property
    def predicted_bytes(self) -> float:
        """Bytes of the scanned weights under the recipe."""
        return sum(point.num_bytes for point in self.chosen.values())

    @property
    def predicted_sqnr_db(self) -> float:
        """Of the outputs, if noises add up."""
        return decibel(sum(noise_of(point) for point in self.chosen.values()))

    def recipe_text(self) -> str:
        """The recipe as YAML: a rule for each weight."""
        head = (
            f"# From a scan of {Path(self.model).name} for {self.target_text}: "
            f"{self.predicted_bytes:.0f} bytes and {self.predicted_sqnr_db:.1f} dB predicted.\n"
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
    min_sqnr: float | None = None,
    sparsity: float | None = None,
    min_size: int = MIN_SIZE,
    calibration: str | os.PathLike[str] | None = None,
    recipe: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Measures every weight of at least `min_size` elements under every scheme.

    Args:
        model: path of the ONNX file.
        schemes: lists of stages (`passes.stages`); DEFAULT_SCHEMES where None. For a `sparsity` one
            list (`scan_sparsity.PruningLadder`).
        min_sqnr: what the recipe shall keep, in dB; 24 where neither is given.
        sparsity: the share of all elements of the scanned weights that the recipe shall prune, each
            weight as far as its measured sensitivity allows.
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
    from toolkit.pipeline import fold_layers, read_source
    from toolkit.prepare_model import prepare

    path, tell = Path(model), progress or silent
    _check_options(min_sqnr, sparsity, min_size)
    threads = thread_count(jobs)
    ladder = PruningLadder.of(schemes) if sparsity is not None else None
    tried = tuple(DEFAULT_SCHEMES if schemes is None else schemes)
    if ladder is not None:
        tried = tuple(ladder.at(value) for value in ladder.values)
    for stages in tried:
        try:
            scheme_of(stages)
        except SchemeError as error:
            raise InputError(f"schemes: {error}") from error
    if not tried:
        raise InputError("schemes: the list is empty")
    outputs = [Path(given) for given in (recipe, report) if given is not None]
    inputs = [path] if calibration is None else [path, Path(calibration)]
    for place, given in enumerate(outputs):
        check_output(given, inputs, outputs[:place])
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    tell("read", "")
    source = read_source(path)
    fold_layers(source)
    names = [n for n, w in source.weights.items() if _is_scanned(source, w, min_size)]
    if not names:
        raise InputError(f"{path}: no weight of {min_size} or more elements to scan")
    tell("inputs", "")
    prepared = prepare(source, names, None if calibration is None else Path(calibration), threads)
    points = []
    for index, name in enumerate(names):
        for stages in tried:
            tell("scan", f"weight {index + 1} of {len(names)}: {name}")
            points.append(measured(source.weights[name], stages, prepared))
    sizes = {name: source.weights[name].num_bytes for name in names}
    notes = list(prepared.notes)
    if ladder is None or sparsity is None:
        wanted = DEFAULT_MIN_SQNR_DB if min_sqnr is None else min_sqnr
        chosen, reached = choose(points, sizes, wanted)
        if not reached:
            notes.append(f"no choice of these schemes is predicted to keep {wanted:g} dB")
        found = Scan(str(path), points, sizes, wanted, chosen, notes)
    else:
        elements = {name: source.weights[name].num_elements for name in names}
        steps = list(ladder.values) * len(names)
        shares = divided(list(zip(steps, points, strict=True)), elements, sparsity)
        chosen = {}
        for name, share in shares.items():
            tell("scan", f"{name} at a sparsity of {share:.4f}")
            point = measured(source.weights[name], ladder.at(share), prepared)
            if point.problem:
                notes.append(f"{name}: stays as it is: {point.problem}")
                continue
            chosen[name] = point
            if not point.healthy:
                notes.append(f"{name}: at a sparsity of {share:.4f} an output loses its signal")
        found = Scan(str(path), points, sizes, None, chosen, notes, sparsity)
    if recipe is not None:
        write_text(Path(recipe), found.recipe_text())
    if report is not None:
        from toolkit.scan_page import render_scan

        write_text(Path(report), render_scan(found))
    return found


def _check_options(min_sqnr: float | None, sparsity: float | None, min_size: int) -> None:
    if min_sqnr is not None and sparsity is not None:
        raise InputError("--min-sqnr and --sparsity: give only one of them")
    if min_sqnr is not None and not (math.isfinite(min_sqnr) and min_sqnr > 0):
        raise InputError(f"--min-sqnr: expected a number above 0, found {min_sqnr:g}")
    if sparsity is not None and not 0 <= sparsity <= 1:
        raise InputError(f"--sparsity: expected a share from 0 to 1, found {sparsity:g}")
    if min_size < 1:
        raise InputError(f"--min-size: expected at least 1, found {min_size}")


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
    most = sum(min(map(noise_of, own)) for own in usable.values())
    if most > budget:
        return {name: min(own, key=noise_of) for name, own in usable.items()}, False
    low, high = -40.0, 400.0  # exponents of the price of noise, bytes per unit, base 2
    for _ in range(60):
        middle = (low + high) / 2
        if sum(map(noise_of, _cheapest(usable, 2.0**middle).values())) <= budget:
            high = middle
        else:
            low = middle
    return _cheapest(usable, 2.0**high), True


def _cheapest(usable: Mapping[str, Sequence[ScanPoint]], price: float) -> dict[str, ScanPoint]:
    return {
        name: min(own, key=lambda p: p.num_bytes + price * noise_of(p))
        for name, own in usable.items()
    }


def _is_scanned(source: Source, weight: Weight, min_size: int) -> bool:
    floats = weight.role not in ("integer", "minor") and weight.name not in source.odd
    return floats and weight.num_elements >= min_size
