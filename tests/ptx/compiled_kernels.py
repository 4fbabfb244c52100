# SPDX-License-Identifier: Apache-2.0
"""The CUDA files of the library as nvcc compiles them: host code as a shared library that calls
the runtime of the PTX machine, kernels as PTX."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runtime.library import library_path
from tests.ptx.parser import Module, parse

CUDA = Path(__file__).resolve().parent.parent.parent / "runtime" / "csrc" / "cuda"
RUNTIME = Path(__file__).with_name("cuda_runtime.cpp")
LIBRARY = "libptx_kernels.so"
NVCC = shutil.which("nvcc")
_INSTALLED = ("device_absent", "emulate")
"""Files of CUDA whose host code is not taken: what they have is in the installed library."""
_OPS = ("ort_*.cpp", "threads.cpp", "worker_pool.cpp")
"""Files beside CUDA's that ONNX Runtime's ops are made of; the installed library exports none of
it."""

KERNELS = tuple(f.stem for f in sorted(CUDA.glob("*.cu")) if "__global__" in f.read_text("utf-8"))
"""Files with kernels."""

ARCHITECTURES = (90, 75)
"""Compute capabilities, 90 for 9.0: the newest that the kernels have code of their own for, and the
one whose PTX the library ships for all devices."""


class CompileError(Exception):
    """What nvcc said."""


def _run(command: Sequence[str], folder: Path) -> None:
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, cwd=folder
    )
    if result.returncode != 0:
        raise CompileError(result.stderr[-2000:])


def _compile(folder: Path) -> None:
    """One run for each kind of file; a kernel's name in PTX is that in the host's code only where
    both come from one run."""
    flags = [
        *(str(NVCC), "-std=c++17", "-Xcompiler", "-fPIC", "-I", str(CUDA.parent), "-I", str(CUDA)),
        *('-DTOOLKIT_CUDA_ARCHITECTURES="PTX"', "-DTOOLKIT_HAS_CUDA"),
    ]
    targets = [f"-gencode=arch=compute_{a},code=compute_{a}" for a in ARCHITECTURES]
    kernels = [str(CUDA / f"{name}.cu") for name in KERNELS]
    _run([*flags, *targets, "-c", "--keep", *kernels], folder)
    library = Path(library_path())
    others = sorted(f for f in CUDA.iterdir() if f.suffix in (".cu", ".cpp"))
    sources = [
        *(f for f in others if f.stem not in KERNELS and f.stem not in _INSTALLED),
        *(f for pattern in _OPS for f in sorted(CUDA.parent.glob(pattern))),
        RUNTIME,
    ]
    host = folder / "host"  # a file of kernels and one without may have one name
    host.mkdir()
    _run([*flags, "-O1", "-c", "-x", "c++", *map(str, sources)], host)
    objects = [*(f"{name}.o" for name in KERNELS), *(f"host/{source.stem}.o" for source in sources)]
    _run([
        *(str(NVCC), "-shared", "-cudart", "none", *objects, "-o", LIBRARY),
        *("-L", str(library.parent), f"-l{library.stem.removeprefix('lib')}", "-lpthread"),
        *("-Xlinker", f"-rpath={library.parent},-Bsymbolic,-z,defs"),
    ], folder)  # fmt: skip
    shutil.rmtree(host)


def sources_hash() -> str:
    """Of everything that the compiled files depend on."""
    found = hashlib.sha256(Path(library_path()).parent.as_posix().encode())
    version = subprocess.run([str(NVCC), "--version"], capture_output=True, check=True, timeout=60)
    found.update(version.stdout)
    headers = sorted(CUDA.parent.glob("*.h"))
    for file in (*headers, *sorted(CUDA.iterdir()), RUNTIME, Path(__file__)):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:16]


def compile_once(folder: Path) -> Path:
    """A folder in this one with the PTX and the shared library of the host's code, made where it is
    not there yet; those of other sources are removed. Processes wait for each other."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / sources_hash()
        if not (made / LIBRARY).is_file():
            for old in folder.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            made.mkdir()
            _compile(made)
            for left in made.iterdir():
                if left.suffix not in (".ptx", ".so"):
                    left.unlink()
    return made


def load_module(folder: Path, name: str, architecture: int) -> Module:
    """The kernels of a file, in a folder of `compile_once`."""
    return parse((folder / f"{name}.compute_{architecture}.ptx").read_text("utf-8"))
