# SPDX-License-Identifier: Apache-2.0
"""Tries other ways of fitting at steps that a search has found."""

from __future__ import annotations

from typing import Any

from toolkit.fitting import CalibratedFitting
from toolkit.prepare_model import Prepared
from toolkit.search import DB_PER_KNOB, Measures, SearchResult

OTHER_OPTIONS: tuple[dict[str, Any], ...] = (
    {"damping": 1.0},
    {"rate_weight": 0.0},
    {"adaptive": False},
    {"adaptive": True, "by_output": True},
    {"trellis": True},
)
"""Options of the fitting that are tried one after the other, each with those that were better."""
LEAST_GAIN_DB = 0.2
DB_PER_BIT = DB_PER_KNOB
"""A bit per weight halves the step."""


def better_options(prepared: Prepared, found: SearchResult, measures: Measures) -> float:
    """Tries the steps of `found` under other options of the fitting, and leaves the best ones in
    `prepared`; returns how many dB they are worth at the same size, 0 where nothing is better.

    Whether rates in the choice of symbols and steps by feature pay depends on the network: with
    rates all errors of a layer lean the same way, which some networks do not forgive. Damping as
    large as the inputs themselves helps where calibration has too few samples to tell features
    apart: what is made up for on it is not on others. Counting errors by what each output of a
    layer does to the model's asks for data that shows all of them. A trellis takes 3 % fewer bytes
    where weights have many outputs, and three times as long to fit.
    """
    from passes.errors import SchemeError

    fitting, steps = prepared.fitting, found.steps
    if not isinstance(fitting, CalibratedFitting) or steps is None or found.fidelity is None:
        return 0.0
    count = sum(array.size for array in prepared.arrays.values())

    def worth(level: float) -> float:
        return level - DB_PER_BIT * 8 * measures.write(steps) / max(count, 1)

    first = best = worth(found.fidelity.sqnr_db)
    plain, chosen = fitting, dict[str, Any]()
    for options in OTHER_OPTIONS:
        if options.get("by_output") and not plain.knows_outputs:
            continue
        prepared.fitting = other = plain.with_options({**chosen, **options})
        text = ", ".join(f"{key} {setting}" for key, setting in options.items())
        try:
            value = worth(prepared.fidelity(steps).sqnr_db)
        except SchemeError as error:  # a bias that takes up too much, say
            measures.progress(f"{text}: not possible ({error})")
            continue
        measures.progress(f"{text}: {value - best:+.1f} dB at the same size")
        if value > best + LEAST_GAIN_DB:
            best, fitting, chosen = value, other, {**chosen, **options}
    prepared.fitting = prepared.checked.fitting = fitting
    return best - first
