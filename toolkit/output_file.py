# SPDX-License-Identifier: Apache-2.0
"""Output paths: checked before any work is done, written beside and moved into place at the end."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import InputError, OutputError, one_line

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EFBIG: "the file exceeds the size limit",
}
"""Errors that only writing gives, in words."""


def output_path(given: str | os.PathLike[str]) -> Path:
    """The path of an output file. Raises `InputError` where the text names a folder."""
    text = os.fspath(given)
    if not text or text.endswith(os.sep):
        raise InputError(f"{text or repr(text)}: the output is a folder, expected a file's name")
    return Path(text)


def check_output(output: Path, sources: Iterable[Path], others: Iterable[Path] = ()) -> None:
    """Refuses an output that cannot be written, that is one of `sources`, or whose external data
    would be, or that is one of the `others` of the same run. Raises `InputError`."""
    folder = output.parent
    try:
        is_there, is_folder = output.exists(), output.is_dir()
    except OSError as error:  # of a folder that may not be looked into
        raise InputError(str(write_failure(output, error))) from error
    if is_folder:
        raise InputError(f"{output}: the output is a folder, expected a file's name")
    if not folder.is_dir():
        raise InputError(f"{output}: cannot be written, there is no folder {folder}")
    for source in sources:
        if _same(source, output):
            raise InputError(f"{output}: is the input itself, give the output another name")
        if _same(source, external_path(output)):
            raise InputError(
                f"{output}: its external data would replace the input {source}, give the output "
                "another name"
            )
    if any(_same(other, output) for other in others):
        raise InputError(f"{output}: is given for two outputs, give one of them another name")
    if is_there and not output.is_file():
        raise InputError(f"{output}: cannot be written, it is a device or the like, no file")
    if is_there and not os.access(output, os.W_OK):
        raise InputError(f"{output}: cannot be written, the file is read-only")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=f".{output.name}.", dir=folder))  # as `beside` will do
    except PermissionError as error:
        raise InputError(
            f"{output}: cannot be written, the folder {folder} is read-only"
        ) from error
    except OSError as error:
        raise InputError(str(write_failure(output, error))) from error


def external_path(output: Path) -> Path:
    """Where the external data of a large model lies, beside the file."""
    return output.with_name(output.name + ".data")


def _same(first: Path, second: Path) -> bool:
    if first.resolve() == second.resolve():
        return True
    return first.exists() and second.exists() and first.samefile(second)


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
        data = external_path(temporary)
        if data.exists():
            os.replace(data, external_path(output))
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
    if error.errno in FULL:
        return OutputError(f"{path}: cannot be written, {FULL[error.errno]}")
    return OutputError(f"{path}: cannot be written ({error.strerror or one_line(error)})")
