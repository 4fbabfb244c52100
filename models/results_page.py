# SPDX-License-Identifier: Apache-2.0
"""Writes RESULTS.md and its pictures from what the recipes measured.

`python -m models.results_page` reads models/results/*/seed*.json, which recipes write with
`--out models/results/<name>`; quick runs do not count.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path

from models.recipe import HEAD, Outcome
from models.results_chart import Point, chart
from models.results_curves import are_curves, medians, tables

FOLDER = Path(__file__).parent
PUBLISHED = {
    "LeNet-300-100": (
        Point("Han et al. 2016", 27_000, 1.58, False),
        Point("Oktay et al. 2020", 8_560, 1.9, False),
    ),
    "LeNet-5": (
        Point("Han et al. 2016", 44_000, 0.74, False),
        Point("Oktay et al. 2020", 2_840, 1.0, False),
    ),
}
"""Bytes and errors of the papers that the recipes name."""

_INTRODUCTION = """# Results of training

Written by `python -m models.results_page` from `models/results`; each row is one run of its
recipe, with the command above its table, on one thread. Errors are those of the finished ONNX
file in `runtime.InferenceSession`: on the 5,000 training digits that are held out, by which
everything was chosen, and on the official test set, looked at at the end.

Ratio of parameters: bytes of the original network's parameters as float32 / bytes from which all
parameters are decoded (symbols, tables, scales, biases, headers). Ratio of the file: the same /
bytes of the ONNX file, graph and names included. Minutes are of a machine with other work.

The same runs stand as recipes of `toolkit train` in `models/recipes`.
"""


_CURVES = """Every method by `python -m models.cifar10_methods COMMAND`, from the same trained float
network, for the epochs in its command, each counted alike: what a method leaves alone is float32.
Adam's rate and what else a method has were chosen on the validation part, seed 0
([what was tried](CIFAR10_TUNING.md)). `entropy-all`: latents under one entropy penalty for biases
and normalisation as well. `lc`: with compression steps that know the price of a bit.
★: no other median has fewer bytes and no more errors, or no more bytes and fewer errors. The
picture shows the medians, each of errors and of bytes alone."""


def read(folder: Path) -> dict[str, list[Outcome]]:
    """The outcomes of all runs that were not quick, by the name of their folder."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    for file in sorted(folder.glob("*/seed*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        command = record.pop("command")
        record.pop("ratio")
        outcome = Outcome(**record)
        if not outcome.quick:
            found[f"{file.parent.name}\n{command}"].append(outcome)
    return dict(found)


def page(runs: dict[str, list[Outcome]]) -> str:
    """RESULTS.md."""
    parts = [_INTRODUCTION]
    for network in dict.fromkeys(outcome.network for group in runs.values() for outcome in group):
        parts.append(f"\n## {network}\n\n![{network}](results/{_slug(network)}.svg)\n")
        of_network = {name: group for name, group in runs.items() if group[0].network == network}
        if are_curves(of_network.values()):
            parts.append(f"\n{_CURVES}\n{tables(of_network)}")
            continue
        for name, group in of_network.items():
            rows = "\n".join(outcome.row() for outcome in group)
            parts.append(f"\n`{name.partition(chr(10))[2]}`\n\n{HEAD}\n{rows}\n")
            parts += [f"\nSeed {o.seed}: {o.note}\n" for o in group if o.note]
            if len(group) > 1:
                parts.append(_median(group))
    return "".join(parts)


def _median(group: list[Outcome]) -> str:
    error = statistics.median(outcome.test_error for outcome in group)
    ratio = statistics.median(outcome.ratio for outcome in group)
    files = statistics.median(outcome.file_ratio for outcome in group)
    return (
        f"\nMedian of {len(group)} seeds: error {error:.2f} %, ratio {ratio:.1f}, of the file "
        f"{files:.1f}.\n"
    )


def _slug(network: str) -> str:
    return network.lower().replace(" ", "_")


def main() -> None:
    """Writes the page and the pictures."""
    runs = read(FOLDER / "results")
    (FOLDER / "RESULTS.md").write_text(page(runs), encoding="utf-8")
    for network in dict.fromkeys(group[0].network for group in runs.values()):
        of_network = {name: group for name, group in runs.items() if group[0].network == network}
        picture = chart(
            network,
            [*PUBLISHED.get(network, ()), *points_of(of_network)],
            are_curves=are_curves(of_network.values()),
        )
        (FOLDER / "results" / f"{_slug(network)}.svg").write_text(picture, encoding="utf-8")


def points_of(runs: dict[str, list[Outcome]]) -> list[Point]:
    """The medians of curves; of other recipes every run."""
    if are_curves(runs.values()):
        return [Point(m.method, m.parameter_bytes, m.test_error, True) for m in medians(runs)]
    outcomes = [outcome for group in runs.values() for outcome in group]
    return [Point(o.method, o.parameter_bytes, o.test_error, True) for o in outcomes]


if __name__ == "__main__":
    main()
