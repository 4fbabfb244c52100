# SPDX-License-Identifier: Apache-2.0
"""The commands that measure many settings of one model: `toolkit scan` and `toolkit sweep`."""

from __future__ import annotations

from typing import Any

import click

from toolkit.commands.options import CALIBRATION_OPTION, JOBS_OPTION, JSON_OPTION, PATH
from toolkit.commands.reporting import reported, show


@click.command("scan")
@click.argument("model", type=PATH)
@click.option("--schemes", type=PATH, help="YAML: a list of lists of stages to try.")
@click.option("--min-sqnr", type=float, help="What the recipe shall keep, dB; 24 by default.")
@click.option(
    "--sparsity",
    type=float,
    help="Instead: share of zeros in all, each weight pruned as its sensitivity allows.",
)
@click.option("--min-size", type=int, default=256, show_default=True, help="Elements of a weight.")
@CALIBRATION_OPTION
@click.option("--recipe", type=PATH, help="Write the recipe that follows here.")
@click.option("--report", type=PATH, help="Write an HTML picture here.")
@JOBS_OPTION
@JSON_OPTION
@click.pass_context
def scan_command(
    context: click.Context, /, model: str, schemes: str | None, as_json: bool, **options: Any
) -> None:
    """Measure each weight of MODEL alone under each scheme: bytes against output error."""
    with reported(context):
        from toolkit.console import progress_line
        from toolkit.printing import print_scan
        from toolkit.recipes import read_schemes
        from toolkit.scan_model import scan

        tried = read_schemes(schemes) if schemes is not None else None
        with progress_line(as_json) as progress:
            found = scan(model, schemes=tried, progress=progress, **options)
        show(found.as_dict(), as_json, lambda: print_scan(found))


@click.command("sweep")
@click.argument("model", type=PATH)
@click.option("--points", type=int, help="Points of the curve; 14 by default.")
@click.option(
    "--knob",
    "knobs",
    type=float,
    multiple=True,
    help="Compute this point: log2 of a typical step relative to RMS; may be repeated.",
)
@CALIBRATION_OPTION
@click.option("--metric", help="top1, cosine, auc, perplexity, or module:function.")
@click.option("--labels", type=PATH, help="Right answers for top1 and auc, an .npy file.")
@click.option("--folder", type=PATH, help="Keep points and recipes here; in the cache by default.")
@click.option("--report", type=PATH, help="Write an HTML page with table and picture here.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Points side by side.")
@click.option(
    "--backend",
    default="loky",
    show_default=True,
    help="joblib's: loky, threading, sequential, dask or ray.",
)
@JSON_OPTION
@click.pass_context
def sweep_command(
    context: click.Context, /, model: str, as_json: bool, knobs: tuple[float, ...], **options: Any
) -> None:
    """Compute the whole curve of MODEL, bytes against quality, each point with its recipe.

    Points are computed once and kept; a sweep that was killed goes on where it was.
    """
    with reported(context):
        from toolkit.console import progress_line
        from toolkit.printing import print_sweep
        from toolkit.sweep_model import sweep

        with progress_line(as_json) as progress:
            found = sweep(model, knobs=knobs or None, progress=progress, **options)
        show(found.as_dict(), as_json, lambda: print_sweep(found))
