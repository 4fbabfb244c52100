# SPDX-License-Identifier: Apache-2.0
"""`toolkit prune-channels`."""

from __future__ import annotations

from typing import Any

import click

from toolkit.commands.options import CALIBRATION_OPTION, JOBS_OPTION, JSON_OPTION, PATH
from toolkit.commands.reporting import reported, show


@click.command("prune-channels")
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, help="The result; NAME.pruned.onnx by default.")
@click.option("--fraction", type=float, help="Share of the channels to remove; 0.3 by default.")
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="PATTERN=FRACTION",
    help="Prune only layers whose weight matches the glob pattern; may be repeated, first wins.",
)
@click.option(
    "--selection",
    default="greedy",
    show_default=True,
    help="Which channels go: greedy, lasso, l1, l2 or random.",
)
@click.option(
    "--allocation",
    default="equal",
    show_default=True,
    help="equal, or sensitivity: as many channels go, of each layer as many as the outputs allow.",
)
@CALIBRATION_OPTION
@click.option(
    "--reconstruct/--no-reconstruct",
    default=True,
    help="Refit the next layers by least squares; on by default.",
)
@click.option(
    "--multiple-of",
    type=int,
    default=8,
    show_default=True,
    help="Round the channels that stay to a multiple of this, which processors like.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn at random.")
@JOBS_OPTION
@JSON_OPTION
@click.pass_context
def prune_channels_command(
    context: click.Context, /, model: str, as_json: bool, **options: Any
) -> None:
    """Remove channels of MODEL and refit what follows; the result is plain ONNX."""
    with reported(context):
        from toolkit.console import progress_line
        from toolkit.printing import print_pruning
        from toolkit.prune_model import prune_channels

        with progress_line(as_json) as progress:
            report = prune_channels(model, **options, progress=progress)
        show(report.as_dict(), as_json, lambda: print_pruning(report))
