# SPDX-License-Identifier: Apache-2.0
"""What a network of the zoo is: a float ONNX file, real inputs, and a measure of its quality."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.fetch import Package, cache_folder, write_atomically

Feeds = dict[str, npt.NDArray[np.generic]]
"""Inputs of one run, by the names in the ONNX file."""

Run = Callable[[Feeds], list[npt.NDArray[np.generic]]]
"""Runs a file on feeds and returns its outputs in the order of the graph."""


@dataclass(frozen=True)
class Evaluation:
    """A measured quality: `value` of `metric` in `unit` over `num_samples` samples.

    `details` holds further figures in the units which their names say.
    """

    metric: str
    value: float
    unit: str
    num_samples: int
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A trained network with real data.

    `kind` is the sort of graph ("cnn", "transformer", ...). `packages` are the archives it needs.
    `build` returns the bytes of the float ONNX file. `score(run, limit)` evaluates on at most
    `limit` samples, or on all where it is None. `calibrate(n)` gives up to n real inputs which the
    evaluation does not use; `example(batch)` gives one feed for timing. `baseline` is the value
    that the float file was measured to reach over all samples, in `unit`; `higher_is_better` tells
    its direction.
    All of them raise `models.fetch.DataUnavailable` when a package cannot be fetched.
    """

    name: str
    kind: str
    description: str
    packages: tuple[Package, ...]
    build: Callable[[], bytes]
    score: Callable[[Run, int | None], Evaluation]
    calibrate: Callable[[int], Feeds]
    example: Callable[[int], Feeds]
    baseline: float
    unit: str
    higher_is_better: bool = True

    def onnx_path(self) -> Path:
        """Path of the float ONNX file, built on first use and kept in the cache.

        Its name holds a digest of the packages and of the code which builds it, so a changed
        recipe never meets an old file.
        """
        path = cache_folder() / "onnx" / f"{self.name}-{self._recipe_digest()}.onnx"
        if not path.exists():
            write_atomically(path, self.build())
        return path

    def evaluate(self, run: Run, limit: int | None = None) -> Evaluation:
        """Quality of the file behind `run`; over the first `limit` samples where given."""
        return self.score(run, limit)

    def calibration(self, count: int) -> Feeds:
        """Up to `count` real inputs stacked on axis 0, none of them used by `evaluate`."""
        return self.calibrate(count)

    def feeds(self, batch: int = 1) -> Feeds:
        """One example feed with `batch` samples, for timing."""
        return self.example(batch)

    def _recipe_digest(self) -> str:
        from models import onnx_graph

        # The module of `build` and those of this folder from which it imports anything.
        recipe = sys.modules[self.build.__module__]
        origins = {getattr(value, "__module__", None) for value in vars(recipe).values()}
        sources = {inspect.getfile(recipe), inspect.getfile(onnx_graph)}
        for origin in origins:
            if isinstance(origin, str) and origin.startswith("models."):
                sources.add(inspect.getfile(sys.modules[origin]))
        digest = hashlib.sha256()
        for package in self.packages:
            digest.update(package.sha256.encode())
        for source in sorted(sources):
            digest.update(Path(source).read_bytes())
        return digest.hexdigest()[:12]


@functools.cache
def session_run(path: Path, threads: int = 1) -> Run:
    """A `Run` of an ONNX file on the CPU. Sessions are kept, one per file, for the process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(feeds: Feeds) -> list[npt.NDArray[np.generic]]:
        return [np.asarray(output) for output in session.run(None, feeds)]

    return run
