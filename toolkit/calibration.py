# SPDX-License-Identifier: Apache-2.0
"""Reads real inputs: an .npz file, a folder of .npz files, .npy files or sub-folders of them, or a
Python function `module:function` that yields feeds."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import InputError, one_line
from toolkit.signature import InputSpec

_NAMELESS = "arr_0"
"""What numpy.savez calls an array that is given without a name."""

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")
"""How .npz files, empty ones and .npy files begin; of others NumPy says that they hold pickles."""

Feed = dict[str, npt.NDArray[Any]]
"""Arrays of one run by input name."""


def read_calibration(path: Path, specs: Sequence[InputSpec], max_feeds: int) -> list[Feed]:
    """At most `max_feeds` feeds from `path`, each checked against the signature.

    An .npz file is one feed, arrays by input name, or, where every input's first dimension is a
    fixed 1 and the arrays stack n samples on it, n feeds. A folder holds such files, or .npy
    files named after the inputs (`NAME.npy`), or sub-folders of those, in the order of their names,
    2.npz before 10.npz. For a model of one input an
    .npy file of any name is a feed, and so is an .npz file of one array without a name
    (`numpy.savez(path, array)`).

    `module:function` is called without arguments and gives feeds, mappings from input names to
    arrays.

    Raises `InputError`, one line, for a path that is not there, a file that cannot be read, a
    function that fails, and an input that is missing, unknown, or of another type or shape than the
    model's.
    """
    from toolkit.calibration_callable import feeds_from_callable, is_callable_name

    feeds: list[Feed] = []
    given: Iterator[tuple[Path, Feed]]
    if is_callable_name(path):
        given = ((path, feed) for feed in feeds_from_callable(str(path)))
    elif path.exists():
        given = _raw_feeds(path, specs)
    else:
        raise InputError(f"{path}: no such calibration file or folder")
    for source, raw in given:
        feeds += _split(source, raw, specs)
        if len(feeds) >= max_feeds:
            break
    if not feeds:
        what = "yields no feed" if is_callable_name(path) else "holds no .npz or .npy file"
        raise InputError(f"{path}: {what}")
    return feeds[:max_feeds]


def split_feeds(feeds: Sequence[Feed], specs: Sequence[InputSpec], samples: int) -> Iterator[Feed]:
    """The feeds in pieces of at most `samples` samples, where the model lets one divide them: every
    input's first dimension is the same symbol, or none is known, and all arrays have one size
    there."""
    symbols = {spec.shape[0] if spec.shape else 1 for spec in specs}
    divisible = len(symbols) == 1 and not isinstance(next(iter(symbols)), int)
    for feed in feeds:
        sizes = {array.shape[0] for array in feed.values() if array.ndim}
        if not divisible or len(sizes) != 1:
            yield feed
            continue
        for start in range(0, sizes.pop(), samples):
            yield {name: array[start : start + samples] for name, array in feed.items()}


def _raw_feeds(path: Path, specs: Sequence[InputSpec]) -> Iterator[tuple[Path, Feed]]:
    if path.is_file():
        yield path, _read(path, specs)
        return
    arrays = sorted(path.glob("*.npy"), key=_by_numbers)
    names = {spec.name for spec in specs}
    if arrays and {file.stem for file in arrays} <= names:
        feed: Feed = {}
        for file in arrays:
            feed.update(_read(file, specs))
        yield path, feed
    else:
        for file in sorted([*arrays, *path.glob("*.npz")], key=_by_numbers):
            yield file, _read(file, specs)
    folders = [entry for entry in path.iterdir() if entry.is_dir()]
    for folder in sorted(folders, key=_by_numbers):
        yield from _raw_feeds(folder, specs)


def _by_numbers(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts names as people count, 2.npz before 10.npz: labels belong to samples by their order."""
    parts = re.split(r"([0-9]+)", path.name)
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in parts if part
    ], path.name


def _read(file: Path, specs: Sequence[InputSpec]) -> Feed:
    try:
        with file.open("rb") as opened:
            if not opened.read(6).startswith(_MAGIC):
                raise ValueError("it begins like neither of them")
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            name = file.stem if any(s.name == file.stem for s in specs) else ""
            if not name and len(specs) != 1:
                known = ", ".join(s.name for s in specs)
                raise InputError(f"{file}: is named after none of the model's inputs ({known})")
            return {name or specs[0].name: loaded}
        with loaded:
            feed = {key: loaded[key] for key in loaded.files}
        if odd := [key for key, array in feed.items() if not isinstance(array, np.ndarray)]:
            raise InputError(f"{file}: its member {odd[0]} is no array")
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: is no readable .npz or .npy file ({one_line(error)})") from error
    if len(specs) == 1 and set(feed) == {_NAMELESS}:
        return {specs[0].name: feed[_NAMELESS]}
    return feed


def _split(source: Path, raw: Feed, specs: Sequence[InputSpec]) -> list[Feed]:
    """Checks one raw feed and takes it apart where the model takes one sample at a time."""
    known = {spec.name for spec in specs}
    if unknown := sorted(set(raw) - known):
        raise InputError(
            f"{source}: {unknown[0]} is no input of the model, which takes "
            f"{', '.join(s.text for s in specs)}"
        )
    for spec in specs:
        if spec.name not in raw:
            raise InputError(f"{source}: has no array for the input {spec.text}")
    typed = {spec.name: _typed(source, raw[spec.name], spec) for spec in specs}
    count = _stacked(typed, specs)
    if count > 1:
        parts = [{n: a[i : i + 1] for n, a in typed.items()} for i in range(count)]
    else:
        parts = [typed]
    for feed in parts:
        _check_shapes(source, feed, specs)
        _check_values(source, feed)
    return parts


def _typed(source: Path, array: npt.NDArray[Any], spec: InputSpec) -> npt.NDArray[Any]:
    expected = spec.dtype
    if expected is None:
        raise InputError(f"{source}: inputs of type {spec.element} ({spec.name}) are not supported")
    if array.dtype == expected:
        return np.asarray(array, order="C")  # unlike ascontiguousarray it leaves a scalar one
    if expected == np.dtype(object) and array.dtype.kind in "US":
        return array.astype(object)
    lossless = np.can_cast(array.dtype, expected, "safe")
    same_family = array.dtype.kind == expected.kind and expected.kind == "f"
    if lossless or same_family:
        return array.astype(expected, order="C")
    if array.dtype.kind in "iu" and expected.kind in "iu":
        cast = array.astype(expected)
        if np.array_equal(cast, array):
            return cast
    raise InputError(f"{source}: {spec.name} has type {array.dtype}, the model expects {expected}")


def _stacked(feed: Feed, specs: Sequence[InputSpec]) -> int:
    """Number of samples stacked on axis 0 of inputs that all take exactly one, else 1."""
    sizes = set()
    for spec in specs:
        array = feed[spec.name]
        if not spec.shape or spec.shape[0] != 1 or array.ndim != len(spec.shape):
            return 1
        sizes.add(array.shape[0])
    return sizes.pop() if len(sizes) == 1 else 1


def _check_values(source: Path, feed: Feed) -> None:
    """Refuses what measures nothing: no values at all, or NaN. Infinity may be a mask's."""
    if feed and all(array.size == 0 for array in feed.values()):
        raise InputError(f"{source}: its arrays hold no values")
    for name, array in feed.items():
        if array.dtype.kind in "fc" and np.isnan(array).any():
            raise InputError(f"{source}: {name} holds NaN")


def _check_shapes(source: Path, feed: Feed, specs: Sequence[InputSpec]) -> None:
    symbols: dict[str, tuple[int, str]] = {}
    for spec in specs:
        shape = feed[spec.name].shape
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(want, int) or want == got
            for want, got in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"{source}: {spec.name} has shape {list(shape)}, the model expects {spec.text}"
            )
        for want, got in zip(spec.shape, shape, strict=True):
            if isinstance(want, str) and want.isidentifier():
                size, where = symbols.setdefault(want, (got, spec.name))
                if size != got:
                    raise InputError(
                        f"{source}: dimension {want} is {size} in {where} and {got} in {spec.name}"
                    )
