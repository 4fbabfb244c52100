# SPDX-License-Identifier: Apache-2.0
"""Folders of results that are kept on disk and shared by processes.

A folder appears whole, by being renamed; the first that comes to its place stays; what was used
longest ago is removed when too much is kept, and nobody removes what another process reads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INDEX = "index.json"
"""The file that each folder has, written last."""
_MAKING = "making-"
_ABANDONED_SECONDS = 7 * 86400
"""Age of a folder without an end from which on it is taken for one of a killed process."""


def cache_folder(name: str) -> Path:
    """Where `name` is kept in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "onnx-weight-toolkit" / name


def read_index(folder: Path, reader: object) -> str:
    """Text of the index of `folder`, which is not removed as long as `reader` lives.

    Raises `FileNotFoundError` where there is none.
    """
    file = (folder / INDEX).open(encoding="utf-8")
    weakref.finalize(reader, file.close)
    fcntl.flock(file, fcntl.LOCK_SH)
    if os.fstat(file.fileno()).st_nlink == 0:
        raise FileNotFoundError(f"{folder}: it was removed at this moment")
    os.utime(folder)
    return file.read()


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of `folder` at the end unless another
    process was faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_MAKING))
    try:
        yield temporary
        _put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def forget_oldest(home: Path, max_bytes: int) -> None:
    """Removes what was used longest ago, and is not in use, while more than `max_bytes` are kept;
    and what killed processes have left."""
    total = 0
    for folder in sorted(home.iterdir(), key=_last_use, reverse=True):
        if folder.name.startswith(_MAKING):
            if time.time() - _last_use(folder) > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        elif (folder / INDEX).is_file():
            total += _size(folder)
            if total > max_bytes:
                _remove_unused(folder)


def _put(temporary: Path, folder: Path) -> None:
    try:
        temporary.replace(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        if not (folder / INDEX).is_file():  # left by a removal that did not come to its end
            shutil.rmtree(folder)
            temporary.replace(folder)


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process was here
        return 0.0


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except FileNotFoundError:
        return 0


def _remove_unused(folder: Path) -> None:
    try:
        with (folder / INDEX).open(encoding="utf-8") as index:
            fcntl.flock(index, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / INDEX).unlink()  # first, so that nobody begins to read the rest
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # in use, or gone
        return
