# SPDX-License-Identifier: Apache-2.0
"""The commands that look at files and at this machine: `inspect`, `compare`, `doctor`."""

from __future__ import annotations

import sys

import click

from toolkit.commands.options import CALIBRATION_OPTION, JOBS_OPTION, JSON_OPTION, PATH
from toolkit.commands.reporting import NOT_REACHED, reported, show


@click.command("inspect")
@click.argument("model", type=PATH)
@JSON_OPTION
@click.pass_context
def inspect_command(context: click.Context, model: str, as_json: bool) -> None:
    """Show where the bytes of MODEL are, tensor by tensor."""
    with reported(context):
        from toolkit.inspect_model import inspect
        from toolkit.printing import print_inspection

        found = inspect(model)
        show(found.as_dict(), as_json, lambda: print_inspection(found))


@click.command("compare")
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@CALIBRATION_OPTION
@JOBS_OPTION
@JSON_OPTION
@click.pass_context
def compare_command(
    context: click.Context,
    first: str,
    second: str,
    calibration: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Run FIRST and SECOND on the same inputs: fidelity, size, latency."""
    with reported(context):
        from toolkit.compare_models import compare
        from toolkit.printing import print_comparison

        found = compare(first, second, calibration=calibration, jobs=jobs)
        show(found.as_dict(), as_json, lambda: print_comparison(found))


@click.command("doctor")
@JSON_OPTION
@click.pass_context
def doctor_command(context: click.Context, as_json: bool) -> None:
    """Check versions, providers, the op library and the processor."""
    with reported(context):
        from toolkit.console import print_table
        from toolkit.doctor import examine

        found = examine()
        rows = [(f.name, "ok" if f.good else "PROBLEM", f.detail) for f in found]
        show(
            [f.as_dict() for f in found],
            as_json,
            lambda: print_table(("what", "state", "found"), rows),
        )
        sys.exit(0 if all(f.good for f in found) else NOT_REACHED)
