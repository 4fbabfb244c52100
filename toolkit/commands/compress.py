# SPDX-License-Identifier: Apache-2.0
"""`toolkit compress` and its way back, `toolkit expand`."""

from __future__ import annotations

import sys
from typing import Any

import click

from toolkit.commands.options import CALIBRATION_OPTION, JOBS_OPTION, JSON_OPTION, PATH, Bytes
from toolkit.commands.reporting import reported, show


@click.command("compress")
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, help="The result; NAME.compressed.onnx by default.")
@click.option("--recipe", type=PATH, help="Settings per weight, a YAML file.")
@click.option("--bits", type=int, help="Uniform quantisation of all weights, 2 to 16 bits.")
@click.option("--lossless", is_flag=True, help="Keep every bit of every weight.")
@click.option("--min-sqnr", type=float, help="Least signal-to-noise ratio of the outputs, dB.")
@click.option("--max-error", type=float, help="Largest output error, as a share of its peak.")
@click.option("--target-ratio", type=float, help="So many times smaller.")
@click.option("--target-size", type=Bytes(), help="So many bytes, e.g. 14300000 or 14.3MB.")
@click.option("--min-agreement", type=float, help="Least share of equal top-1 results.")
@click.option("--max-drop", help="How much the metric may lose, e.g. 0.002 or 0.5%.")
@click.option(
    "--metric",
    help="top1, cosine, auc, perplexity, or module:function, called with a way to run the model.",
)
@click.option("--labels", type=PATH, help="Right answers for top1 and auc, an .npy file.")
@CALIBRATION_OPTION
@click.option(
    "--sequential",
    is_flag=True,
    help="Fit each layer again to what the compressed layers before it give.",
)
@click.option("--report", type=PATH, help="Write an HTML report here.")
@click.option(
    "--portable/--no-portable",
    default=None,
    help="Embed the decoder as standard operators; by default where it takes under 1 %.",
)
@click.option(
    "--for-gpu",
    is_flag=True,
    help="Many small blocks, which a GPU decodes side by side; the file grows a little.",
)
@click.option("--dry-run", is_flag=True, help="Do everything but write nothing.")
@JOBS_OPTION
@JSON_OPTION
@click.pass_context
def compress_command(
    context: click.Context, /, model: str, as_json: bool, portable: bool | None, **options: Any
) -> None:
    """Make MODEL smaller.

    Without an option the outputs keep a fixed fidelity, and the coarsest quantisation that does so
    is found by really running the model.
    """
    with reported(context):
        from toolkit.compress_model import compress
        from toolkit.console import progress_line

        way = {None: "auto", True: "always", False: "never"}[portable]
        with progress_line(as_json) as progress:
            report = compress(model, **options, portable=way, progress=progress)  # type: ignore[arg-type]
        if as_json:
            click.echo(report.to_json())
        else:
            from toolkit.printing import print_report

            print_report(report)
        sys.exit(report.exit_code)


@click.command("expand")
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, help="The result; NAME.expanded.onnx by default.")
@JOBS_OPTION
@JSON_OPTION
@click.pass_context
def expand_command(
    context: click.Context, model: str, output: str | None, jobs: int | None, as_json: bool
) -> None:
    """Turn compressed MODEL back into plain ONNX."""
    with reported(context):
        from toolkit.expand_model import expand

        found = expand(model, output, jobs=jobs)
        text = (
            f"{found.model} -> {found.output}: {found.compressed_bytes} -> {found.expanded_bytes} "
            f"bytes, {found.num_weights} weights decoded"
        )
        show(found.as_dict(), as_json, lambda: click.echo(text))
