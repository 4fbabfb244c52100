# SPDX-License-Identifier: Apache-2.0
"""`prune_channels`: a model with fewer channels, as a plain ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.calibration import Feed
from toolkit.errors import InputError, OutputError, VerificationError, one_line
from toolkit.fidelity import Fidelity, compare_outputs
from toolkit.ort_session import thread_count
from toolkit.output_file import beside, check_output, publish
from toolkit.progress import Progress, silent

if TYPE_CHECKING:
    import onnx_ir as ir

    from passes.channels import BlockedLayer, PrunedGroup
    from passes.prune_channels import PruneResult

PathLike = str | os.PathLike[str]
Outputs = list[dict[str, Any]]

DEFAULT_FRACTION = 0.3
SURGERY_FLOOR_DB = 60.0
"""Least SQNR of the cut model to the same one with its channels still there but silent."""


@dataclass
class ChannelReport:
    """What `prune_channels` did: bytes of the files, elements of weights, multiplications per
    sample, medians of the latency of one feed in milliseconds, fidelity of the outputs to the
    original's on the inputs that were given or made up."""

    model: str
    output: str
    selection: str
    allocation: str
    reconstruct: bool
    original_bytes: int
    pruned_bytes: int
    original_parameters: int
    pruned_parameters: int
    original_macs: int
    pruned_macs: int
    original_ms: float
    pruned_ms: float
    fidelity: Fidelity
    groups: list[PrunedGroup]
    blocked: list[BlockedLayer]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["fidelity"] = self.fidelity.as_dict()
        return values


def prune_channels(
    model: PathLike,
    output: PathLike | None = None,
    *,
    fraction: float | None = None,
    layers: Mapping[str, float] | Sequence[str] = (),
    selection: str = "greedy",
    allocation: str = "equal",
    calibration: PathLike | None = None,
    reconstruct: bool = True,
    multiple_of: int = 8,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ChannelReport:
    """Removes channels of a model and refits the layers behind them on calibration data.

    Args:
        model: path of a plain ONNX file.
        output: path of the result; `NAME.pruned.onnx` beside the model where None.
        fraction: share of the channels to remove of every group; 0.3 where None.
        layers: shares by glob pattern on weight names, or "PATTERN=SHARE" texts; other layers keep
            their channels. Excludes `fraction`.
        selection: "greedy", "lasso", "l1", "l2" or "random".
        allocation: "equal", or "sensitivity": as many channels go altogether, of each group as many
            as the outputs allow; takes several times as long.
        calibration: real inputs, as `toolkit.compress` takes them. Refits, the selections "greedy"
            and "lasso" and the allocation "sensitivity" need them; what else is measured is on
            made-up ones where None.
        reconstruct: whether layers are refitted.
        multiple_of: numbers of channels that stay are rounded to multiples of this.
        seed: of what is drawn at random.
        jobs: threads; one per core where None.
        progress: called with a stage and a detail.

    Raises:
        InputError: the file, the calibration or an option cannot be used, or nothing can be pruned.
        OutputError: the result cannot be written; nothing half-written remains.
        VerificationError: the result does not compute what it should; nothing is written.
    """
    from passes.count_macs import count_macs, count_parameters
    from toolkit.pipeline import fold_layers, read_source

    tell = progress or silent
    path = Path(model)
    target = (
        Path(output)
        if output is not None
        else path.with_name(f"{path.name.removesuffix('.onnx')}.pruned.onnx")
    )
    check_output(target, [path])
    shares = _shares(fraction, layers)
    threads = thread_count(jobs)
    if seed < 0:
        raise InputError(f"--seed: expected at least 0, found {seed}")

    fitted = _needs_calibration(selection, allocation, reconstruct)
    if fitted and calibration is None:
        raise InputError(
            f"{fitted} needs real inputs: give --calibration, or prune by --selection l2 "
            "--no-reconstruct"
        )
    tell("read", "")
    source = read_source(path)
    fold_layers(source)
    tell("inputs", "")
    feeds, expected, notes = _run_original(path, source.model, calibration, threads)
    if fitted:
        notes.append("fidelity is on the inputs that were fitted to; on others it is lower")
    tell("prune", "")
    macs, parameters = count_macs(source.model), count_parameters(source.model)
    settings = {
        "allocation": allocation,
        "reconstruct": reconstruct,
        "multiple_of": multiple_of,
        "seed": seed,
    }
    result = _pruned(source.model, selection, shares, feeds, threads, settings)
    pruned_macs, pruned_parameters = count_macs(source.model), count_parameters(source.model)
    with beside(target) as temporary:
        tell("write", "")
        size = _written(source.model, temporary, target)
        tell("verify", "")
        found = _run_file(temporary, target, feeds, threads)
        _check_surgery(result, found, feeds, threads, target)
        times = _latencies(path, temporary, feeds[0], threads)
        publish(temporary, target)
    return ChannelReport(
        str(path),
        str(target),
        selection,
        allocation,
        reconstruct,
        source.num_bytes,
        size,
        parameters,
        pruned_parameters,
        macs,
        pruned_macs,
        *times,
        compare_outputs(expected, found),
        list(result.groups),
        list(result.blocked),
        [*source.notes, *notes, *result.notes],
    )


def _needs_calibration(selection: str, allocation: str, reconstruct: bool) -> str:
    """What needs real inputs, in words; empty where nothing does."""
    from passes.channels.selection import MEASURED, check_selection
    from passes.errors import SettingsError

    try:
        check_selection(selection)
    except SettingsError as error:
        raise InputError(str(error)) from error
    if selection in MEASURED:
        return f"selection {selection!r}"
    if allocation == "sensitivity":
        return f"allocation {allocation!r}"
    return "reconstruction" if reconstruct else ""


def _shares(
    fraction: float | None, layers: Mapping[str, float] | Sequence[str]
) -> float | dict[str, float]:
    if not layers:
        return DEFAULT_FRACTION if fraction is None else fraction
    if fraction is not None:
        raise InputError("--fraction and --layer exclude each other")
    if isinstance(layers, Mapping):
        return dict(layers)
    shares: dict[str, float] = {}
    for text in layers:
        pattern, mark, value = text.rpartition("=")
        try:
            shares[pattern] = float(value)
        except ValueError as error:
            raise InputError(f"--layer {text!r}: expected PATTERN=FRACTION") from error
        if not mark or not pattern:
            raise InputError(f"--layer {text!r}: expected PATTERN=FRACTION")
    return shares


def _run_original(
    path: Path, model: ir.Model, calibration: PathLike | None, threads: int
) -> tuple[list[Feed], Outputs, list[str]]:
    from toolkit.fixed_sizes import fixed_sizes
    from toolkit.index_bounds import index_bounds
    from toolkit.inputs import model_inputs, work_of_feed
    from toolkit.ort_session import open_session, run_named
    from toolkit.signature import signature

    session = open_session(path, threads)
    chosen = model_inputs(
        signature(session.get_inputs()),
        Path(calibration) if calibration is not None else None,
        index_bounds(model),
        lambda feed: run_named(session, feed),
        work=partial(work_of_feed, model),
        sizes=fixed_sizes(model),
    )
    try:
        outputs = [run_named(session, feed) for feed in chosen.feeds]
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise InputError(f"{path}: does not run on these inputs ({one_line(error)})") from error
    return chosen.feeds, outputs, chosen.notes


def _pruned(
    model: ir.Model,
    selection: str,
    shares: float | dict[str, float],
    feeds: list[Feed],
    threads: int,
    settings: Mapping[str, Any],
) -> PruneResult:
    from passes.channels import find_channel_groups
    from passes.clean_up import CleanUp
    from passes.errors import ModelError, SchemeError, SettingsError
    from passes.prune_channels import PruneChannels
    from toolkit.capture_activations import CapturedActivations

    try:
        activations = CapturedActivations(feeds, threads)
        pruning = PruneChannels(selection, shares, activations=activations, **settings)
        result = pruning.call(model)
    except (ModelError, SchemeError, SettingsError) as error:
        raise InputError(str(error)) from error
    if not result.groups:
        if find_channel_groups(model).groups:
            multiple = settings["multiple_of"]
            raise InputError(
                f"no channel is removed: the fraction rounds to none with {multiple} as multiple_of"
            )
        why = f": {result.blocked[0].name}: {result.blocked[0].reason}" if result.blocked else ""
        raise InputError(f"no channel can be removed{why}")
    CleanUp(rename_values=False, keep_node_names=True)(model)
    return result


def _written(model: ir.Model, temporary: Path, target: Path) -> int:
    from passes.errors import ModelError
    from passes.model_file import write_model

    try:
        return int(write_model(model, temporary))
    except ModelError as error:
        raise OutputError(str(error).replace(str(temporary), str(target))) from error


def _run_file(path: Path, target: Path, feeds: list[Feed], threads: int) -> Outputs:
    from toolkit.ort_session import open_session, run_named

    try:
        session = open_session(path, threads)
        return [run_named(session, feed) for feed in feeds]
    except Exception as error:  # whatever it is, the file that was written does not run
        text = one_line(error).replace(str(path), str(target))
        raise VerificationError(f"{target}: the pruned model does not run ({text})") from error


def _check_surgery(
    result: PruneResult, found: Outputs, feeds: list[Feed], threads: int, target: Path
) -> None:
    """The cut model must compute what the model computes whose channels are there but silent."""
    from toolkit.ort_session import quiet_options, run_named, session_of

    if result.masked is None:
        return
    session = session_of(result.masked, quiet_options(threads))
    fidelity = compare_outputs([run_named(session, feed) for feed in feeds], found)
    if fidelity.sqnr_db < SURGERY_FLOOR_DB:
        raise VerificationError(
            f"{target}: the pruned model is {fidelity.sqnr_db:.1f} dB from the same model with its "
            f"channels silenced, expected at least {SURGERY_FLOOR_DB:g} dB"
        )


def _latencies(path: Path, pruned: Path, feed: Feed, threads: int) -> tuple[float, float]:
    from toolkit.compare_models import latencies
    from toolkit.ort_session import open_session

    sessions = [open_session(file, threads, lean=False) for file in (path, pruned)]
    before, after = latencies(sessions, feed)
    return before, after
