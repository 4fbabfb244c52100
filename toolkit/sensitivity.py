# SPDX-License-Identifier: Apache-2.0
"""Measures how much each weight's quantisation error shows in the outputs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from toolkit.allocation import MAX_SYMBOL, fill_sensitivity
from toolkit.blas_threads import one_blas_thread
from toolkit.fidelity import Fidelity
from toolkit.rate_curve import RateCurve

COVERED = 0.995
"""Weights are measured, the largest first, until they hold this share of all values."""

DRAWS = 2
RATIO = 0.9
"""Each weight is drawn twice, on one half of the feeds each, with steps in this ratio."""

Alone = Callable[[str, float, int], Fidelity]


def measure_sensitivity(
    curves: Mapping[str, RateCurve],
    steps: Mapping[str, float],
    alone: Alone,
    together: Fidelity,
    most: int,
    progress: Callable[[str], None] = lambda text: None,
    by_step: bool = False,
    lost: set[str] | None = None,
    workers: int = 1,
) -> tuple[dict[str, float], int]:
    """Noise in the outputs per unit of relative weight error, for every weight; or per squared step
    relative to the RMS, with `by_step`.

    `alone(name, step, draw)` runs the model with that one weight quantised, on the share of feeds
    number `draw` of two; `together` is the fidelity with all weights at `steps`. Weights are
    measured from the largest on, `workers` of them side by side, in at most `most` runs (a count,
    so that every machine finds the same); `fill_sensitivity` gives the others the mean.
    Outputs that are near their limit when all are quantised count more. Returns the sensitivities
    and the number of weights measured, no more than 0 of them where it failed; `lost` gets the
    names of those that alone ruin an output.
    """
    weights = _output_weights(together)
    total = sum(curve.size for curve in curves.values())
    order = sorted(curves, key=lambda name: -curves[name].size)
    draws: dict[str, list[float]] = {}

    def measured(place: tuple[int, str]) -> tuple[str, float, float | None]:
        draw, name = place
        step = max(steps[name] * RATIO**draw, curves[name].peak / MAX_SYMBOL)
        return name, step, _noise(alone(name, step, draw), weights)

    # A thread of its own for one worker would keep memory of its own, too.
    side_by_side = ThreadPoolExecutor(workers) if workers > 1 else nullcontext()
    limited = one_blas_thread() if workers > 1 else nullcontext()
    with limited, side_by_side as pool:
        apply = map if pool is None else pool.map
        for draw in range(DRAWS):
            seen, done = 0, 0
            while done < len(order) and most > 0 and seen < COVERED * total:
                names = order[done : done + min(workers, most)]
                most -= len(names)
                for name, step, noise in apply(measured, [(draw, name) for name in names]):
                    seen += curves[name].size
                    if noise is None and lost is not None:
                        lost.add(name)
                    if noise is not None:
                        error = curves[name].mse_at(step)
                        error = _squared(step, curves[name]) if by_step else error
                        draws.setdefault(name, []).append(noise / max(error, 1e-30))
                done += len(names)
                progress(f"draw {draw + 1}, weight {done} of {len(order)}: {names[-1]}")
    return fill_sensitivity(curves, _shrunk(draws)), len(draws)


def _squared(step: float, curve: RateCurve) -> float:
    return (step / curve.rms) ** 2 if curve.rms else 1.0


def _shrunk(draws: Mapping[str, list[float]]) -> dict[str, float]:
    """One figure per weight, drawn towards the mean as far as the draws are noise.

    On a log scale, the variance of the difference of two draws is twice the noise of one; what is
    left of the variance between weights is real (empirical Bayes).
    """
    logs = {
        name: [math.log(value) for value in values if value > 0] for name, values in draws.items()
    }
    pairs = [values for values in logs.values() if len(values) == DRAWS]
    if len(pairs) < 2:
        return {name: math.fsum(values) / len(values) for name, values in draws.items()}
    noise = statistics.fmean((a - b) ** 2 for a, b in pairs) / 4  # of the mean of two draws
    means = {name: math.fsum(values) / len(values) for name, values in logs.items() if values}
    centre = statistics.fmean(means.values())
    between = statistics.pvariance(means.values())
    keep = max(0.0, 1.0 - noise / between) if between > 0 else 0.0
    shrunk = {name: math.exp(centre + keep * (mean - centre)) for name, mean in means.items()}
    return {name: shrunk.get(name, 0.0) for name in draws}


def _noise(fidelity: Fidelity, weights: Mapping[str, float]) -> float | None:
    """Noise over signal, averaged over the outputs with their weights; None where one is lost."""
    total = 0.0
    for output in fidelity.outputs:
        weight = weights.get(output.name, 0.0)
        if weight and output.problem:
            return None
        if weight:
            total += weight * 10.0 ** (-output.sqnr_db / 10.0)
    return total


def _output_weights(together: Fidelity) -> dict[str, float]:
    """A weight for every output that drives the search: its own noise relative to the worst's."""
    counted = [o for o in together.outputs if o.name not in together.ignored and not o.problem]
    if not counted:  # some weight ruins all of them: whichever does will be found alone
        return {o.name: 1.0 for o in together.outputs if o.name not in together.ignored}
    driving = [o for o in counted if o.kind == "float"] or counted
    noise = {o.name: 10.0 ** (-o.sqnr_db / 10.0) for o in driving}
    worst = max(noise.values(), default=0.0)
    return {name: value / worst if worst else 1.0 for name, value in noise.items()}
