# SPDX-License-Identifier: Apache-2.0
"""Second moments of layer inputs on calibration data, measured once for each model and data and
kept on disk.

A folder for each hash of model and data; arrays are mapped from there, so that no more of them is
in memory than what is being fitted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.capture_activations import CapturedActivations
from toolkit.errors import InputError, OutputError
from toolkit.kept_folders import INDEX, cache_folder, forget_oldest, making, read_index

if TYPE_CHECKING:
    from passes.schemes.moments import Moments, RowUse
    from toolkit.pipeline import Source

VERSION = 3
"""Of what is measured: another one does not find what an earlier one has kept."""
MAX_KEPT_BYTES = 8 << 30

GRADIENT_FEEDS = 64
"""Of a few samples each, on which gradients are measured."""
MAX_DIFFERENTIATED = 512 << 20
"""Bytes of a model: gradients of larger ones are not measured, they need a weight twice."""

Progress = Callable[[str], None]


class MomentStore(Mapping[str, "Moments | RowUse"]):
    """Moments by weight. `missing` says of other weights why they have none; `was_kept` whether
    nothing had to be measured."""

    def __init__(self, folder: Path, was_kept: bool) -> None:
        self._folder, self.was_kept = folder, was_kept
        index = json.loads(read_index(folder, self))
        self._entries: dict[str, dict[str, Any]] = index["weights"]
        self.missing: dict[str, str] = index["missing"]

    def __getitem__(self, name: str) -> Moments | RowUse:
        from passes.schemes.moments import MatrixLayout, Moments, RowUse

        entry = self._entries[name]
        arrays = [np.load(self._folder / file, mmap_mode="r") for file in entry["arrays"]]
        if "axis" in entry:
            return RowUse(arrays[0], entry["axis"])
        layout = MatrixLayout(*(tuple(part) for part in entry["layout"]))
        outputs = arrays[2] if len(arrays) > 2 else None
        return Moments(arrays[0], arrays[1], entry["count"], layout, outputs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def moments_of(
    source: Source,
    feeds: Sequence[Feed],
    names: Sequence[str],
    threads: int = 0,
    progress: Progress = lambda text: None,
    kept_in: Path | None = None,
) -> MomentStore:
    """Moments of the inputs of weights on `feeds`, kept in the user's cache folder or in `kept_in`.

    Raises `InputError` where the model does not run on them or gives NaN, `OutputError` where
    nothing can be written to the folder.
    """
    home = kept_in or cache_folder("moments")
    folder = home / _digest(source, feeds, names)
    try:
        return MomentStore(folder, True)
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:
        with making(folder) as temporary:
            _measure(source, feeds, names, threads, progress, temporary)
        store = MomentStore(folder, False)
        forget_oldest(home, MAX_KEPT_BYTES)
    except OSError as error:
        raise OutputError(f"{home}: calibration cannot be kept there ({error})") from error
    return store


def _measure(
    source: Source,
    feeds: Sequence[Feed],
    names: Sequence[str],
    threads: int,
    progress: Progress,
    folder: Path,
) -> None:
    from passes.errors import ModelError
    from passes.moments import measure_moments, with_outputs
    from passes.schemes import Moments

    counted = _importance(source, feeds, names, threads, progress)
    activations = CapturedActivations(feeds, threads)
    entries: dict[str, Any] = {}
    missing: dict[str, str] = {}
    files: dict[int, str] = {}
    try:
        for part in measure_moments(
            activations,
            source.model,
            names,
            progress=lambda done, total: progress(f"run {done} of {total}"),
        ):
            files.clear()  # arrays of one part are alive together, so their ids differ
            for name, found in part.found.items():
                if isinstance(found, Moments) and name in counted:
                    found = with_outputs(found, counted[name])
                entries[name] = _kept(found, folder, len(entries), files)
            missing |= part.missing
    except ModelError as error:
        raise InputError(f"{source.path}: {error}") from error
    index = {"weights": entries, "missing": missing}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _importance(
    source: Source,
    feeds: Sequence[Feed],
    names: Sequence[str],
    threads: int,
    progress: Progress,
) -> dict[str, npt.NDArray[Any]]:
    """How much errors of each layer's outputs count, on some of the feeds; nothing for large models
    and those that do not run with their gradients."""
    from passes.moments import measure_output_importance
    from toolkit.output_parts import judged_floats

    if source.num_bytes > MAX_DIFFERENTIATED:
        return {}
    few = list(feeds)[:: -(-len(feeds) // GRADIENT_FEEDS)]
    progress("gradients")
    try:
        return measure_output_importance(
            CapturedActivations(few, threads),
            source.model,
            names,
            judged_floats(source.model.graph),
        )
    except InputError:  # the same model without gradients says what is wrong, if anything is
        return {}


def _kept(
    found: Moments | RowUse, folder: Path, number: int, files: dict[int, str]
) -> dict[str, Any]:
    """Writes the arrays of one weight, those that it shares with others once."""
    from passes.schemes.moments import RowUse

    arrays = [found.counts] if isinstance(found, RowUse) else [found.inputs, found.means]
    names = []
    for part, array in enumerate(arrays):
        if id(array) not in files:
            files[id(array)] = f"{number}_{part}.npy"
            np.save(folder / files[id(array)], array)
        names.append(files[id(array)])
    if not isinstance(found, RowUse) and found.outputs is not None:  # of this weight alone
        names.append(f"{number}_outputs.npy")
        np.save(folder / names[-1], found.outputs)
    if isinstance(found, RowUse):
        return {"arrays": names, "axis": found.axis}
    layout = found.layout
    parts = [layout.axes, layout.split, layout.groups, layout.features, layout.outputs]
    return {"arrays": names, "count": found.count, "layout": parts}


def _digest(source: Source, feeds: Sequence[Feed], names: Sequence[str]) -> str:
    """Of the model's files, the feeds, and what is asked for."""
    digest = hashlib.sha256(json.dumps([VERSION, list(names)]).encode())
    for path in (source.path, *source.external):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            if array.dtype == object:
                digest.update(repr(array.tolist()).encode())
            else:
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]
