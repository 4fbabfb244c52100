# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit codes: 0 done, 1 a target was not reached, 2 bad input, 70 a bug, 130 and
143 interrupted (SIGINT, SIGTERM).

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from toolkit.errors import InputError, OutputError, one_line
from toolkit.versions import DISTRIBUTION

NOT_REACHED, BAD_INPUT, BUG, INTERRUPTED, TERMINATED = 1, 2, 70, 130, 143

PATH = click.Path()
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
JOBS_OPTION = click.option("--jobs", type=int, help="Threads; one per core by default.")


class Bytes(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number of bytes: 14300000, 14.3MB (10^6) or 13.6MiB (2^20)."""

    name = "bytes"
    units = {
        "": 1,
        "b": 1,
        "kb": 10**3,
        "mb": 10**6,
        "gb": 10**9,
        "kib": 2**10,
        "mib": 2**20,
        "gib": 2**30,
    }

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().replace("_", "").replace(",", "")
        number = text.rstrip("bkmgi ")
        factor = self.units.get(text[len(number) :].strip())
        try:
            if factor is not None:
                return int(float(number) * factor)
        except (ValueError, OverflowError):
            pass
        self.fail(f"{value!r} is no number of bytes, write for example 14300000 or 14.3MB")


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
            _fail(BAD_INPUT, f"error: {text} (`{command} --help` shows what can be given)")
        except click.Abort as error:
            _interrupted(error.__cause__)


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


@main.command("compress")
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
@click.option(
    "--calibration",
    type=PATH,
    help="Real inputs: .npz file, folder of .npz/.npy, or module:function that yields them.",
)
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


@main.command("prune-channels")
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
@click.option("--calibration", type=PATH, help="Real inputs: .npz file, or folder of .npz/.npy.")
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
        _show(report.as_dict(), as_json, lambda: print_pruning(report))


@main.command("expand")
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
        _show(found.as_dict(), as_json, lambda: click.echo(text))


@main.command("inspect")
@click.argument("model", type=PATH)
@JSON_OPTION
@click.pass_context
def inspect_command(context: click.Context, model: str, as_json: bool) -> None:
    """Show where the bytes of MODEL are, tensor by tensor."""
    with reported(context):
        from toolkit.inspect_model import inspect
        from toolkit.printing import print_inspection

        found = inspect(model)
        _show(found.as_dict(), as_json, lambda: print_inspection(found))


@main.command("compare")
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@click.option("--calibration", type=PATH, help="Real inputs: .npz file, or folder of .npz/.npy.")
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
        _show(found.as_dict(), as_json, lambda: print_comparison(found))


@main.command("doctor")
@JSON_OPTION
@click.pass_context
def doctor_command(context: click.Context, as_json: bool) -> None:
    """Check versions, providers, the op library and the processor."""
    with reported(context):
        from toolkit.console import print_table
        from toolkit.doctor import examine

        found = examine()
        rows = [(f.name, "ok" if f.good else "PROBLEM", f.detail) for f in found]
        _show(
            [f.as_dict() for f in found],
            as_json,
            lambda: print_table(("what", "state", "found"), rows),
        )
        sys.exit(0 if all(f.good for f in found) else NOT_REACHED)


@main.command("scan")
@click.argument("model", type=PATH)
@click.option("--schemes", type=PATH, help="YAML: a list of lists of stages to try.")
@click.option("--min-sqnr", type=float, help="What the recipe shall keep, dB; 24 by default.")
@click.option(
    "--sparsity",
    type=float,
    help="Instead: share of zeros in all, each weight pruned as its sensitivity allows.",
)
@click.option("--min-size", type=int, default=256, show_default=True, help="Elements of a weight.")
@click.option("--calibration", type=PATH, help="Real inputs: .npz file, or folder of .npz/.npy.")
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
        _show(found.as_dict(), as_json, lambda: print_scan(found))


@main.command("sweep")
@click.argument("model", type=PATH)
@click.option("--points", type=int, help="Points of the curve; 14 by default.")
@click.option(
    "--knob",
    "knobs",
    type=float,
    multiple=True,
    help="Compute this point: log2 of a typical step relative to RMS; may be repeated.",
)
@click.option(
    "--calibration",
    type=PATH,
    help="Real inputs: .npz file, folder of .npz/.npy, or module:function that yields them.",
)
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
        _show(found.as_dict(), as_json, lambda: print_sweep(found))


@main.command("passes")
@JSON_OPTION
@click.pass_context
def passes_command(context: click.Context, as_json: bool) -> None:
    """List the graph passes and the schemes, with their options."""
    with reported(context):
        from toolkit.list_passes import listed_passes
        from toolkit.printing import print_passes

        found = listed_passes()
        _show([f.as_dict() for f in found], as_json, lambda: print_passes(found))


@main.command("recipe")
@click.argument("name", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of recipes.")
@click.pass_context
def recipe_command(context: click.Context, name: str | None, schema: bool) -> None:
    """Print the ready recipe NAME; without it, the names of all of them."""
    with reported(context):
        from toolkit import recipes

        if schema and name:
            raise InputError("NAME and --schema: give only one of them")
        click.echo(recipes.schema() if schema else recipes.text(name) if name else recipes.names())


def _show(values: Any, as_json: bool, plain: Callable[[], None]) -> None:
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
        _fail(BAD_INPUT, f"error: {one_line(error, 600)}")
    except KeyboardInterrupt as error:
        _interrupted(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail(BAD_INPUT, "error: not enough memory for this model")
    except OSError as error:
        if debug:
            raise
        from toolkit.output_file import write_failure

        name = error.filename or "standard output"
        _fail(BAD_INPUT, f"error: {one_line(write_failure(_path(name), error))}")
    except Exception as error:
        if debug:
            raise
        _fail(
            BUG,
            f"internal error, please report: {type(error).__name__}: {one_line(error)} "
            "(run again as `toolkit --debug ...` for the traceback)",
        )


def _path(name: Any) -> Any:
    from pathlib import Path

    return Path(os.fsdecode(name))


class _Termination(KeyboardInterrupt):
    """SIGTERM arrived."""


def _interrupted(cause: BaseException | None) -> None:
    code = TERMINATED if isinstance(cause, _Termination) else INTERRUPTED
    _fail(code, "interrupted, nothing written")


def _fail(code: int, text: str) -> None:
    click.echo(text, err=True)
    sys.exit(code)


def entry() -> None:
    """The console script. A termination request cleans up as an interrupt does."""

    def stop(number: int, frame: object) -> None:
        raise _Termination

    signal.signal(signal.SIGTERM, stop)
    main(prog_name="toolkit")


import toolkit.cli_train  # noqa: E402, F401  (its commands use what is above)
