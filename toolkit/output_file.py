# SPDX-License-Identifier: Apache-2.0
"""Output paths: checked before any work is done, written beside and moved into place at the end."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import InputError, OutputError, one_line


def check_output(output: Path, sources: list[Path]) -> None:
    """Refuses an output that cannot be written or that is one of `sources`. Raises `InputError`."""
    folder = output.parent
    if output.is_dir():
        raise InputError(f"{output}: the output is a folder, expected the name of a file")
    if not folder.is_dir():
        raise InputError(f"{output}: cannot be written, there is no folder {folder}")
    for source in sources:
        if source.resolve() == output.resolve() or (output.exists() and output.samefile(source)):
            raise InputError(f"{output}: is the input itself, give another name by --output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{output}: cannot be written, the folder {folder} is read-only")
    if output.exists() and not os.access(output, os.W_OK):
        raise InputError(f"{output}: cannot be written, the file is read-only")


@contextmanager
def beside(output: Path) -> Iterator[Path]:
    """A path of the same name in a new hidden folder beside `output`. The folder is gone
    afterwards, whatever happens; `publish` moves its files out before."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise write_failure(output, error) from error
    try:
        yield folder / output.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(temporary: Path, output: Path) -> None:
    """Moves the finished file, and its external data if there is any, to `output`."""
    try:
        data = temporary.with_name(temporary.name + ".data")
        if data.exists():
            os.replace(data, output.with_name(data.name))
        os.replace(temporary, output)
    except OSError as error:
        raise write_failure(output, error) from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all. Raises `OutputError`."""
    with beside(path) as temporary:
        try:
            temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise write_failure(path, error) from error
        publish(temporary, path)


def write_failure(path: Path, error: OSError) -> OutputError:
    """The error to raise where writing `path` failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{path}: cannot be written, the disk is full")
    if error.errno == errno.EFBIG:
        return OutputError(f"{path}: cannot be written, the file exceeds the size limit")
    return OutputError(f"{path}: cannot be written ({error.strerror or one_line(error)})")
