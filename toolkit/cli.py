# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit codes: 0 done, 1 a target was not reached, 2 bad input, 70 a bug, 130 and
143 interrupted (SIGINT, SIGTERM).

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from toolkit.commands import compress, curves, examine, offers, prune_channels, training
from toolkit.commands.reporting import BAD_INPUT, Termination, fail, interrupted
from toolkit.errors import one_line
from toolkit.versions import DISTRIBUTION


class _Commands(click.Group):
    """A group whose usage errors are one line on stderr, as all other errors are."""

    def main(self, args: Any = None, prog_name: Any = None, **extra: Any) -> Any:  # type: ignore[override]
        if not extra.pop("standalone_mode", True):
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(args, prog_name, standalone_mode=False, **extra))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else "toolkit"
            text = one_line(ValueError(error.format_message()))
            fail(BAD_INPUT, f"error: {text} (`{command} --help` shows what can be given)")
        except click.Abort as error:
            interrupted(error.__cause__)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name=DISTRIBUTION, message="%(version)s")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Turns a trained ONNX model into a much smaller ONNX file, and proves what that cost."""
    context.obj = debug


for command in (
    compress.compress_command,
    compress.expand_command,
    prune_channels.prune_channels_command,
    examine.inspect_command,
    examine.compare_command,
    examine.doctor_command,
    curves.scan_command,
    curves.sweep_command,
    offers.passes_command,
    offers.recipe_command,
    training.train_command,
    training.distill_command,
):
    main.add_command(command)


def entry() -> None:
    """The console script. A termination request cleans up as an interrupt does."""

    def stop(number: int, frame: object) -> None:
        raise Termination

    signal.signal(signal.SIGTERM, stop)
    main(prog_name="toolkit")
