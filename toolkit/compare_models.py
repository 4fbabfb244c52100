# SPDX-License-Identifier: Apache-2.0
"""`compare`: how close, how large and how fast one file is beside another."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, one_line
from toolkit.fidelity import Fidelity, compare_outputs
from toolkit.memory import release_memory

PathLike = str | os.PathLike[str]

TIMED_RUNS = 15


@dataclass
class Comparison:
    """Two files on the same inputs: `fidelity` of the second's outputs to the first's, sizes in
    bytes, medians of latencies of one feed in milliseconds."""

    first: str
    second: str
    first_bytes: int
    second_bytes: int
    first_ms: float
    second_ms: float
    fidelity: Fidelity
    num_feeds: int
    notes: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Bytes of the first file / bytes of the second."""
        return self.first_bytes / max(self.second_bytes, 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["fidelity"], values["ratio"] = self.fidelity.as_dict(), self.ratio
        return values


def compare(
    first: PathLike,
    second: PathLike,
    *,
    calibration: PathLike | None = None,
    jobs: int | None = None,
) -> Comparison:
    """Runs two files, plain or compressed, on the same inputs.

    Raises `InputError`, one line, where a file cannot be read or run, their inputs or outputs
    differ, or the calibration does not match.
    """
    from passes.errors import ModelError
    from passes.model_file import deserialize
    from toolkit.fixed_sizes import fixed_sizes
    from toolkit.index_bounds import index_bounds
    from toolkit.inputs import model_inputs
    from toolkit.model_check import read_any
    from toolkit.ort_session import run_named, thread_count
    from toolkit.signature import signature

    threads = thread_count(jobs)
    sizes: list[int] = []
    sources: list[tuple[Path, bool]] = []
    bounds: dict[str, int] = {}
    fixed: dict[str, dict[int, int]] = {}
    for path in (first, second):
        model = read_any(Path(path))
        if not sources:
            try:
                graph = deserialize(model.proto, path)
            except ModelError as error:
                raise InputError(str(error)) from error
            bounds, fixed = index_bounds(graph), fixed_sizes(graph)
            del graph
        sizes.append(model.num_bytes)
        sources.append((model.path, model.is_compressed))
        del model  # as large as the file, and a session takes as much again
    release_memory()
    sessions = [_session(path, is_compressed, threads) for path, is_compressed in sources]
    specs, others = (signature(session.get_inputs()) for session in sessions)
    _check_same([s.name for s in specs], [s.name for s in others], first, second, "inputs")
    names = [[output.name for output in session.get_outputs()] for session in sessions]
    _check_same(names[0], names[1], first, second, "outputs")
    chosen = model_inputs(
        specs,
        Path(calibration) if calibration is not None else None,
        bounds,
        lambda feed: run_named(sessions[0], feed),
        sizes=fixed,
    )
    outputs: list[list[dict[str, Any]]] = []
    for path, session in zip((first, second), sessions, strict=True):
        try:
            outputs.append([run_named(session, feed) for feed in chosen.feeds])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise InputError(f"{path}: does not run on these inputs ({one_line(error)})") from error
    times = latencies(sessions, chosen.feeds[0])
    return Comparison(
        str(first),
        str(second),
        sizes[0],
        sizes[1],
        times[0],
        times[1],
        compare_outputs(outputs[0], outputs[1]),
        len(chosen.feeds),
        chosen.notes,
    )


def _session(path: Path, is_compressed: bool, threads: int) -> Any:
    from toolkit.ort_session import open_session, quiet_options

    if not is_compressed:
        return open_session(path, threads, lean=False)
    import runtime

    try:
        return runtime.InferenceSession(
            str(path), quiet_options(threads, lean=False), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # runtime's and onnxruntime's
        raise InputError(f"{path}: cannot be loaded ({one_line(error)})") from error


def _check_same(
    before: list[str], after: list[str], first: PathLike, second: PathLike, what: str
) -> None:
    if set(before) != set(after):
        odd = sorted(set(before) ^ set(after))[0]
        raise InputError(f"{first} and {second}: have different {what} ({odd} is in one only)")


def latencies(sessions: list[Any], feed: dict[str, Any]) -> list[float]:
    """Median milliseconds of each session, the sessions taking turns."""
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(TIMED_RUNS):
        for session, spent in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            spent.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(spent[2:]) for spent in times]
