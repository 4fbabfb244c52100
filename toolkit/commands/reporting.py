# SPDX-License-Identifier: Apache-2.0
"""How a command ends: what it shows, one line for an error, and the exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from toolkit.errors import InputError, OutputError, one_line

NOT_REACHED, BAD_INPUT, BUG, INTERRUPTED, TERMINATED = 1, 2, 70, 130, 143


def show(values: Any, as_json: bool, plain: Callable[[], None]) -> None:
    if as_json:
        from toolkit.report import to_json

        click.echo(to_json(values))
    else:
        plain()


@contextmanager
def reported(context: click.Context) -> Iterator[None]:
    """Turns errors into one line on stderr and an exit code; with `--debug` lets them through."""
    from toolkit.memory import map_large_blocks

    debug = bool(context.obj)
    if not debug:  # its warnings about a malformed model would stand beside the one clear line
        logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)
    map_large_blocks()
    try:
        yield
    except (InputError, OutputError) as error:
        if debug:
            raise
        fail(BAD_INPUT, f"error: {one_line(error, 600)}")
    except KeyboardInterrupt as error:
        interrupted(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        fail(BAD_INPUT, "error: not enough memory for this model")
    except OSError as error:
        if debug:
            raise
        fail(BAD_INPUT, f"error: {one_line(_failure(error))}")
    except Exception as error:
        if debug:
            raise
        fail(
            BUG,
            f"internal error, please report: {type(error).__name__}: {one_line(error)} "
            "(run again as `toolkit --debug ...` for the traceback)",
        )


def _failure(error: OSError) -> Exception:
    """What the system refused: to write where it says so, else whatever was asked of the file."""
    from pathlib import Path

    from toolkit.output_file import FULL, write_failure

    if error.filename is None:
        return write_failure(Path("standard output"), error)
    path = Path(os.fsdecode(error.filename))
    if error.errno in FULL:
        return write_failure(path, error)
    return InputError(f"{path}: {error.strerror or one_line(error)}")


class Termination(KeyboardInterrupt):
    """SIGTERM arrived."""


def interrupted(cause: BaseException | None) -> None:
    code = TERMINATED if isinstance(cause, Termination) else INTERRUPTED
    fail(code, "interrupted, nothing written")


def fail(code: int, text: str) -> None:
    click.echo(text, err=True)
    sys.exit(code)
